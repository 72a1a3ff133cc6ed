"""How little a row looks like any class that was learned, from outputs alone. NumPy, host.

Higher is less known. The most probable class's probability (Hendrycks, Gimpel, ICLR 2017), the
entropy of all, and the free energy of the logits (Liu, Wang, Owens, Li, NeurIPS 2020), which
normalising would lose.
"""

from collections.abc import Callable

import numpy as np
import scipy.special
from jaxtyping import Float


def max_probability(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " N"]:
    """1 - max p, as the sum of the other probabilities, which keeps digits near 0."""
    p = np.sort(scipy.special.softmax(np.asarray(logits, np.float64), axis=1), axis=1)
    return p[:, :-1].sum(1)


def entropy(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " N"]:
    """Shannon entropy of the classes' probabilities, in nats."""
    p = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    return scipy.special.entr(p).sum(1)


def energy(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " N"]:
    """-logsumexp of the logits. It needs a network's own: logarithms of probabilities give 0."""
    return -scipy.special.logsumexp(np.asarray(logits, np.float64), axis=1)


SCORES: dict[str, Callable[[Float[np.ndarray, "N C"]], Float[np.ndarray, " N"]]] = {
    "max_probability": max_probability,
    "entropy": entropy,
    "energy": energy,
}
"""By name."""
