"""QoE-aware, federated, post-quantum-protected intrusion detection for the IoT, in JAX.

Importing this package imports nothing heavy: worker processes that only seal and open
envelopes never load jax. ``import qoejax.data`` registers the TFDS builders.
"""

__version__ = "0.1.0"
