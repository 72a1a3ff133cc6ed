"""Training rows that clients keep back from training, to calibrate with. NumPy only."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Aside(NamedTuple):
    """Rows of one client that nothing was trained on, sorted, in two disjoint parts.

    Probabilities are scaled by one part and thresholds found on the other, so that the rows of a
    threshold are as new to what gives their scores as later rows are.
    """

    temperature: Int[np.ndarray, " a"]
    conformal: Int[np.ndarray, " b"]


def keep_back(
    parts: Sequence[np.ndarray], share: float, together: int, seed: int
) -> tuple[list[np.ndarray], list[Aside]]:
    """Each client's rows to train on, and those to calibrate with.

    A client's rows, in order, are cut into runs of ``together``, which stay whole: where
    neighbouring rows are much alike, as windows of one episode, a row is not new while its
    neighbour is trained on. A ``share`` of the runs is kept back, at least one and never all; a
    quarter of these, rounded up, is for the temperature if there is more than one. A client with
    one run keeps nothing back.

    Args:
      parts: Row numbers of each client.
      share: In (0, 1).
      together: Rows of a run.
      seed: Who draws is the client's number and this.
    """
    trained, asides = [], []
    for client, part in enumerate(parts):
        part = np.sort(part)
        runs = np.array_split(part, range(together, len(part), together))
        count = min(max(1, round(share * len(runs))), len(runs) - 1)
        order = np.random.default_rng((seed, 12, client)).permutation(len(runs))
        first = math.ceil(count / 4) if count > 1 else 0
        picks = (order[:first], order[first:count], order[count:])
        temperature, conformal, rest = (
            np.concatenate([part[:0], *(runs[i] for i in np.sort(pick))]) for pick in picks
        )
        trained.append(rest)
        asides.append(Aside(temperature, conformal))
    return trained, asides
