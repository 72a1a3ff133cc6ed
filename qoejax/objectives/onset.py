"""How soon alarms follow an onset: CUSUM, thresholds at a false positive rate, delays. NumPy."""

import numpy as np
from jaxtyping import Bool, Float, Int


def cusum(z: Float[np.ndarray, "E W"], drift: float) -> Float[np.ndarray, "E W"]:
    """One-sided cumulative sums, ``S[t] = max(0, S[t - 1] + z[t] - drift)`` from 0.

    Page, "Continuous inspection schemes", Biometrika 41, 1954. In closed form: how far the sum is
    above its lowest value so far.

    Args:
        z: standardised observations of E episodes at W times.
        drift: allowance; half the shift that is to be found soonest.
    """
    total = np.cumsum(z - drift, axis=1)
    return total - np.minimum(np.minimum.accumulate(total, axis=1), 0.0)


def threshold(benign: Float[np.ndarray, " n"], rate: float) -> float:
    """The lowest score that at most a share ``rate`` of benign scores are above.

    Raises:
        ValueError: there are too few scores to see such a rate.
    """
    if len(benign) * rate < 1:
        raise ValueError(
            f"a rate of {rate:g} needs {1 / rate:.0f} benign scores, got {len(benign)}"
        )
    return float(np.sort(benign)[::-1][int(len(benign) * rate)])


def delays(
    alarm: Bool[np.ndarray, "E W"], onset: Int[np.ndarray, " E"]
) -> tuple[Int[np.ndarray, " E"], Bool[np.ndarray, " E"]]:
    """Steps from the beginning of each episode's onset to the end of its first alarm from then on.

    Returns:
        The delays, at least 1; without an alarm, the steps to the end of the episode: the delay is
        censored there. And whether there was an alarm.
    """
    steps = alarm.shape[1]
    later = alarm & (np.arange(steps) >= onset[:, None])
    found = np.asarray(later.any(1))
    first = np.where(found, later.argmax(1), steps - 1)
    return first - onset + 1, found


def median(delay: Int[np.ndarray, " E"], found: Bool[np.ndarray, " E"]) -> float:
    """Median delay, infinite where no more than half of the episodes had an alarm.

    That is right as long as no episode was censored before it.
    """
    return float(np.median(np.where(found, delay, np.inf)))
