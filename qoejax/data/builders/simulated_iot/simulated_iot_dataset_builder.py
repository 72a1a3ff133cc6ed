"""Simulated IoT sites behind shared bottlenecks: features, attacks, experience. No download."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from qoejax.data.builders.simulated_iot import bootstrap
from qoejax.data.builders.simulated_iot.configs import CONFIGS, TEST_EVERY, Part, parts
from qoejax.data.packed import PackedBuilder, Plan
from qoejax.data.table import MOS, NUMERIC, QOME, Column, Service, Spec, Table, make_table
from qoejax.simulate import attacks, episodes, mixes
from qoejax.simulate.observe import FEATURES
from qoejax.simulate.probes import PROBES

SEED = 20230401
"""Of all configs: a larger one repeats the sites and episodes of a smaller one, and adds others."""

SETTINGS = episodes.Settings()

CHUNK = 80
"""Episodes simulated at once: enough to be fast, small in memory."""

SHARD_SITES = 20

SERVICES = tuple(
    Service(name, horizon, QOME if probe.machine else MOS)
    for name, probe in PROBES.items()
    for horizon in SETTINGS.horizons
)
"""Every service now (0) and at every horizon."""


class Builder(PackedBuilder):
    """Simulated IoT sites behind shared bottlenecks: flow features, attacks, experience.

    Train and test split by episode: no episode has windows on both sides. The natural group is the
    site.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 (as TFDS wants it)
        "2.0.0": "Four services at five horizons, eight attack families, scenarios, hold-outs.",
        "1.0.0": "First simulator: one bottleneck a site, voice MOS.",
    }
    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(name=name, description=c.why) for name, c in CONFIGS.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "small"

    @property
    def MANUAL_DOWNLOAD_INSTRUCTIONS(self) -> str | None:
        """What to put into manual_dir; None for the configs that need nothing."""
        recorded = CONFIGS[self.builder_config.name].recorded
        return bootstrap.INSTRUCTIONS if recorded else None

    def _spec(self) -> Spec:
        return Spec(
            dataset=f"{self.name}/{self.builder_config.name}",
            columns=tuple(Column(n, unit, NUMERIC, False, why) for n, unit, why in FEATURES),
            label_names=mixes.LABELS,
            services=SERVICES,
            vocab={},
            benign=mixes.LABELS[0],
            window=SETTINGS.length,
        )

    def _plan(self, manual_dir: pathlib.Path | None, scratch: pathlib.Path) -> Plan:
        del scratch
        config = CONFIGS[self.builder_config.name]
        self._sources: list[dict[str, Any]] = []
        recorded = None
        if config.recorded:
            recorded, self._sources = bootstrap.read(manual_dir)
        chosen = parts(config)
        total = sum(len(p.sites) * len(p.numbers) for p in chosen.values())
        done = _Progress(self.progress, total)
        shards = {
            split: [
                functools.partial(_tables, part._replace(sites=group), recorded, done)
                for group in np.split(part.sites, range(SHARD_SITES, len(part.sites), SHARD_SITES))
            ]
            for split, part in chosen.items()
        }
        return Plan(shards, self._finish_metadata)

    def _finish_metadata(self) -> tuple[Spec, dict[str, Any]]:
        config = CONFIGS[self.builder_config.name]
        return self._spec(), {
            "seed": SEED,
            "sites": config.sites,
            "episodes_per_site": config.episodes,
            "test_every": TEST_EVERY,
            "settings": {**SETTINGS._asdict(), "horizons": list(SETTINGS.horizons)},
            "sources": self._sources,
            "jax": jax.__version__,
        }


class _Progress:
    """Tells the caller's function how far all shards together are."""

    def __init__(self, tell: Any, total: int):
        self._tell, self._total, self._done = tell, total, 0

    def __call__(self, finished: int) -> None:
        self._done += finished
        if self._tell:
            self._tell(self._done * SETTINGS.examples(), self._done / self._total)


def _tables(part: Part, recorded: attacks.Recording | None, done: _Progress) -> Iterator[Table]:
    """The examples of the episodes of a part, site by site."""
    site = np.repeat(part.sites, len(part.numbers))
    number = np.tile(part.numbers, len(part.sites))
    key = jax.random.key(SEED, impl="threefry2x32")
    world = episodes.World(part.scenario, SETTINGS, part.attacks)
    for start in range(0, len(site), CHUNK):
        ids = (site[start : start + CHUNK], number[start : start + CHUNK])
        real = len(ids[0])
        # The last chunk repeats its last episode, so that all chunks share one compilation.
        padded = [jnp.asarray(np.pad(i, (0, CHUNK - real), mode="edge")) for i in ids]
        made = jax.device_get(simulate(key, *padded, recorded, world))
        x, label, score = (a[:real].reshape(-1, *a.shape[2:]) for a in made)
        group: Int[np.ndarray, " n"] = np.repeat(ids[0], SETTINGS.examples())
        yield make_table(x, label, group, score.reshape(len(score), -1))
        done(real)


@functools.partial(jax.jit, static_argnames="world")
def simulate(key: Any, site: Any, number: Any, recorded: Any, world: Any) -> episodes.Windows:
    """``episodes.examples`` of many episodes [E] at once."""
    one = functools.partial(episodes.examples, world=world)
    return jax.vmap(lambda s, n: one(key, s, n, recorded=recorded))(site, number)
