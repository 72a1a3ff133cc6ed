"""Axis glossary, and the two records that cross room boundaries.

Axes, as used in every shape annotation:

    N  rows (examples) of a table            C  classes
    K  clients of a cohort                   P  clients of the population
    B  examples of a batch                   Q  services that carry a MOS
    T  consecutive records of a window       M  MOS bins
    F  features of a record                  S  local steps
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

Params = Any
"""A pytree of float arrays."""

Sums = dict[str, Any]
"""Metric numerators and denominators; adding two of them is always meaningful."""


class Examples(NamedTuple):
    """N examples, one row each; the only form in which data reaches the device.

    ``weight`` is 0 for padding and multiplies an example's loss and its metric counts. A dataset
    without MOS has an all-false ``mos_mask``; ``mos`` is then ignored.
    """

    x: Float[Array, "N T F"]
    label: Int[Array, " N"]
    mos: Float[Array, "N Q"]
    mos_mask: Bool[Array, "N Q"]
    weight: Float[Array, " N"]


class Cohort(NamedTuple):
    """K clients of one round, as ranges of rows of an ``Examples`` staged on the device.

    Rows stay where they are: a client draws its batches by index, so a cohort costs a few words a
    client whatever the number of steps. ``weight`` 0 marks a padding client.
    """

    client_id: Int[Array, " K"]
    offset: Int[Array, " K"]
    count: Int[Array, " K"]
    steps: Int[Array, " K"]
    weight: Float[Array, " K"]
