"""Kinds of places, and sites drawn from them: a literal table, and one JAX function.

A site is a natural federated client: its own capacity, buffer, delay, usual load and device mix.
The ranges are this simulator's own, in the order of what such access links are sold with; no
deployment was measured for them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from qoejax.qoe import machine
from qoejax.simulate.ranges import Range, draw


class Scenario(NamedTuple):
    """Where the sites of one kind of place come from.

    Attributes:
        capacity_mbps: of the bottleneck.
        buffer_ms: time a full buffer takes to drain.
        base_ms: one-way delay without queueing.
        load: usual load of background traffic, as a share of capacity.
        fading: standard deviation of the log of the capacity around its mean, which wanders with
            a memory of 5 s; 0 for a wire.
        shares: usual share of bytes of each of ``mixes.DEVICES``; they sum to 1.
        telemetry_5qi: class of 3GPP TS 23.501 whose delay budget telemetry has (``qoe.machine``).
    """

    capacity_mbps: Range
    buffer_ms: Range
    base_ms: Range
    load: Range
    fading: float
    shares: tuple[float, ...]
    telemetry_5qi: int


SCENARIOS: dict[str, Scenario] = {
    # camera, sensor, media, update, polling, admin, discovery
    "mixed": Scenario(
        Range(2, 20, log=True), Range(50, 400), Range(10, 60), Range(0.3, 0.75), 0.05,
        (0.37, 0.066, 0.33, 0.18, 0.03, 0.012, 0.012), 70,
    ),
    "smart_home": Scenario(
        Range(2, 20, log=True), Range(100, 600), Range(10, 50), Range(0.25, 0.75), 0.05,
        (0.25, 0.03, 0.52, 0.14, 0.03, 0.005, 0.025), 9,
    ),
    "smart_city": Scenario(
        Range(10, 100, log=True), Range(50, 300), Range(20, 80), Range(0.35, 0.85), 0.1,
        (0.62, 0.22, 0.02, 0.06, 0.05, 0.02, 0.01), 9,
    ),
    "hospital": Scenario(
        Range(20, 200, log=True), Range(20, 200), Range(3, 30), Range(0.3, 0.8), 0.0,
        (0.15, 0.25, 0.15, 0.15, 0.22, 0.05, 0.03), 69,
    ),
    "factory": Scenario(
        Range(10, 100, log=True), Range(20, 200), Range(2, 15), Range(0.3, 0.85), 0.0,
        (0.28, 0.36, 0.01, 0.06, 0.24, 0.03, 0.02), 3,
    ),
    "slice_5g": Scenario(
        Range(5, 50, log=True), Range(10, 100), Range(2, 8), Range(0.3, 0.8), 0.2,
        (0.45, 0.35, 0.05, 0.08, 0.05, 0.01, 0.01), 82,
    ),
}  # fmt: skip
"""The kinds of places. 5QI 70 (200 ms): mission-critical data. 9 (300 ms): the default bearer.
69 (60 ms): mission-critical signalling. 3 (50 ms): process monitoring. 82 (10 ms): discrete
automation."""


class Site(NamedTuple):
    """Hidden properties of a site.

    Attributes:
        capacity: of the bottleneck, bytes/s.
        buffer_s: time a full buffer takes to drain at that capacity.
        base_s: one-way delay without queueing.
        load: usual load of background traffic, as a share of capacity.
        fading: see ``Scenario``.
        mix: share of bytes of each of ``mixes.DEVICES``; sums to 1.
        budget_ms: delay budget of telemetry.
    """

    capacity: Float[Array, ""]
    buffer_s: Float[Array, ""]
    base_s: Float[Array, ""]
    load: Float[Array, ""]
    fading: Float[Array, ""]
    mix: Float[Array, " D"]
    budget_ms: Float[Array, ""]


def draw_site(key: Key[Array, ""], scenario: Scenario) -> Site:
    """A site of a scenario; its device mix scatters log-normally (0.5) around the usual shares."""
    range_key, mix_key = jax.random.split(key)
    names = ("capacity_mbps", "buffer_ms", "base_ms", "load")
    drawn = draw(range_key, {name: getattr(scenario, name) for name in names})
    usual = jnp.array(scenario.shares)
    mix = usual * jnp.exp(0.5 * jax.random.normal(mix_key, usual.shape))
    return Site(
        capacity=drawn["capacity_mbps"] * (1e6 / 8),
        buffer_s=drawn["buffer_ms"] * 1e-3,
        base_s=drawn["base_ms"] * 1e-3,
        load=drawn["load"],
        fading=jnp.float32(scenario.fading),
        mix=mix / mix.sum(),
        budget_ms=jnp.float32(machine.FIVE_QI[scenario.telemetry_5qi].delay_ms),
    )
