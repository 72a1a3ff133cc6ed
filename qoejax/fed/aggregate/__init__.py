"""From the clients' deltas to one. JAX.

An aggregator is an ``init/update`` pair in one literal table; adding one costs a function and an
entry. The robust rules are told how many Byzantine clients f to expect in a round, and with it
state the number of clients that they need (``Aggregator.least``):

    rule               clients  f of n below   weights
    coordinate_median  2 f + 1  1/2            equal
    trimmed_mean       2 f + 1  1/2            equal
    krum, multi_krum   2 f + 3  1/2            equal
    bulyan             4 f + 3  1/4            equal
    geometric_median   2 f + 1  1/2            the cohort's
    centred_clipping   2 f + 1  1/2            equal
    norm_bounding      2 f + 1  (bounds only)  the cohort's
    fltrust              f + 1  1              equal
    dnc                2 f + 1  1/2            equal
"""

from collections.abc import Callable

from qoejax.fed.aggregate.base import Aggregator
from qoejax.fed.aggregate.centre import centred_clipping, fltrust, geometric_median, norm_bounding
from qoejax.fed.aggregate.coordinate import coordinate_median, trimmed_mean
from qoejax.fed.aggregate.exact import exact_mean, exact_weighted_mean
from qoejax.fed.aggregate.means import mean, weighted_mean
from qoejax.fed.aggregate.selection import bulyan, dnc, krum, multi_krum

__all__ = ["AGGREGATORS", "EXACT", "ROBUST", "Aggregator", "mean", "weighted_mean"]

ROBUST: dict[str, Callable[..., Aggregator]] = {
    "coordinate_median": coordinate_median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "bulyan": bulyan,
    "geometric_median": geometric_median,
    "centred_clipping": centred_clipping,
    "norm_bounding": norm_bounding,
    "fltrust": fltrust,
    "dnc": dnc,
}
"""Rules that take ``byzantine``, the number of such clients in a round."""

AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "weighted_mean": weighted_mean,
    "mean": mean,
    **ROBUST,
}

EXACT: dict[str, Callable[..., Aggregator]] = {
    "weighted_mean": exact_weighted_mean,
    "mean": exact_mean,
}
"""The same by sums that do not depend on the order of clients, for ``fed.strict``."""
