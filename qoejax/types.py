"""Axis glossary, and the two records that cross room boundaries.

Axes, as used in every shape annotation:

    N  rows (examples) of a table            C  classes
    K  clients of a cohort                   P  clients of the population
    B  examples of a batch                   Q  services that carry a MOS
    T  consecutive records of a window       M  MOS bins
    F  features of a record                  S  local steps
"""

from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int

Params = Any
"""A pytree of float arrays."""

Sums = dict[str, Any]
"""Metric numerators and denominators; adding two of them is always meaningful."""


class Examples(NamedTuple):
    """N examples, one row each; the only form in which data reaches the device.

    Leaves are NumPy arrays on the host, and JAX arrays once staged; ``Any`` stands for the two.

    ``weight`` is 0 for padding and multiplies an example's loss and its metric counts. A dataset
    without MOS has an all-false ``mos_mask``; ``mos`` is then ignored.
    """

    x: Float[Any, "N T F"]
    label: Int[Any, " N"]
    mos: Float[Any, "N Q"]
    mos_mask: Bool[Any, "N Q"]
    weight: Float[Any, " N"]


class Cohort(NamedTuple):
    """K clients of one round, as ranges of rows of an ``Examples`` staged on the device.

    Rows stay where they are: a client draws its batches by index, so a cohort costs a few words a
    client whatever the number of steps. ``weight`` 0 marks a padding client (id -1), or one that
    was asked and does not finish. ``staleness`` is the age in rounds of the model that a client
    started from, where rounds are buffered.
    """

    client_id: Int[Any, " K"]
    offset: Int[Any, " K"]
    count: Int[Any, " K"]
    steps: Int[Any, " K"]
    weight: Float[Any, " K"]
    staleness: Int[Any, " K"] | None = None
