"""What others do in place of our wire, one small file each: measured, never imported by a run.

tls           a classical TLS 1.3 connection with certificates at both ends
ckks          homomorphic sums: TenSEAL
secagg_plus   SecAgg+ of Flower, one client's share of it
"""
