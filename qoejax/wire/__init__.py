"""Bytes that cross machines: post-quantum sealed and signed updates.

NumPy and the standard library only, plus pqcrypto and cryptography: worker processes import
nothing else. ``docs/wire.md`` gives the formats; ``exchange`` is what a training loop uses.
"""
