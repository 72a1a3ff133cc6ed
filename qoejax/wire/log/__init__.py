"""The transparency log of a run: a Merkle tree that can only grow, signed and witnessed.

Standard library, plus ML-DSA-44 from pqcrypto or cryptography. The formats are those of RFC 6962
(tree) and C2SP (signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy, tlog-proof,
tlog-witness); ``docs/transparency-log.md`` says what an entry holds.
"""
