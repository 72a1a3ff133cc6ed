"""Secure aggregation with post-quantum keys: the server learns a sum, and no single update.

Bell et al. 2020 (SecAgg+) with KEMs in the place of Diffie-Hellman: pairwise seeds come from
X-Wing, every round's seeds are wrapped under a key that the holders can give away, and an agreement
lasts an epoch. NumPy, `cryptography` and the wire's own primitives. See docs/secagg.md.

    agreement, client, server   the two sides, as functions of states and frames
    local                       both in one process, with members that leave
    plan, forms                 what is agreed and signed; bodies of the messages
    graph, bound                who masks with whom; degree and threshold, and why they suffice
    shamir, masks               secret sharing; keystreams in the ring
"""
