"""Simulated IoT sites behind shared bottlenecks: flow features, attacks, voice MOS. No download."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from qoejax.data.packed import PackedBuilder, Plan
from qoejax.data.table import NUMERIC, Column, Service, Spec, Table, make_table
from qoejax.simulate import episodes, mixes

SEED = 20230401
"""Of all configs: a larger one repeats the sites and episodes of a smaller one, and adds others."""

SETTINGS = episodes.Settings()

CHUNK = 80
"""Episodes simulated at once: enough to be fast, small in memory."""

SHARD_SITES = 20

TEST_EVERY = 5
"""One episode in so many is a test episode, at every site."""


class Size(NamedTuple):
    """How many sites a config has, and how many episodes of each."""

    sites: int
    episodes: int


SIZES: dict[str, Size] = {"small": Size(20, 80), "standard": Size(100, 200), "tiny": Size(3, 10)}
"""The configs; the first is the default."""


class Builder(PackedBuilder):
    """Simulated IoT sites behind shared bottlenecks: flow features, attacks, voice MOS.

    Train and test split by episode: no episode has windows on both sides, every site has both.
    The natural group is the site.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First simulator: one bottleneck a site, voice MOS."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012 (as TFDS wants it)
        tfds.core.BuilderConfig(
            name=name,
            description=f"{s.sites} sites of {s.episodes} episodes, {SETTINGS.seconds} s each",
        )
        for name, s in SIZES.items()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "small"

    def _spec(self) -> Spec:
        return Spec(
            dataset=f"{self.name}/{self.builder_config.name}",
            columns=tuple(
                Column(n, unit, NUMERIC, False, why) for n, unit, why in episodes.FEATURES
            ),
            label_names=mixes.LABELS,
            services=tuple(Service(name, SETTINGS.horizon) for name in episodes.SERVICES),
            vocab={},
            benign=mixes.LABELS[0],
            window=SETTINGS.length,
        )

    def _plan(self, manual_dir: pathlib.Path | None, scratch: pathlib.Path) -> Plan:
        del manual_dir, scratch
        size = SIZES[self.builder_config.name]
        numbers = np.arange(size.episodes, dtype=np.int32)
        is_test = numbers % TEST_EVERY == TEST_EVERY - 1
        chosen = {"train": numbers[~is_test], "test": numbers[is_test]}
        sites = np.arange(size.sites, dtype=np.int32)
        groups = [sites[i : i + SHARD_SITES] for i in range(0, len(sites), SHARD_SITES)]
        done = _Progress(self.progress, len(sites) * len(numbers))
        shards = {
            split: [functools.partial(_tables, group, own, done) for group in groups]
            for split, own in chosen.items()
        }
        return Plan(shards, self._finish_metadata)

    def _finish_metadata(self) -> tuple[Spec, dict[str, Any]]:
        size = SIZES[self.builder_config.name]
        return self._spec(), {
            "seed": SEED,
            "sites": size.sites,
            "episodes_per_site": size.episodes,
            "settings": SETTINGS._asdict(),
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


def _tables(
    sites: Int[np.ndarray, " s"], numbers: Int[np.ndarray, " e"], done: _Progress
) -> Iterator[Table]:
    """The examples of the given episodes of the given sites, site by site."""
    site = np.repeat(sites, len(numbers))
    number = np.tile(numbers, len(sites))
    key = jax.random.key(SEED, impl="threefry2x32")
    for start in range(0, len(site), CHUNK):
        ids = (site[start : start + CHUNK], number[start : start + CHUNK])
        real = len(ids[0])
        # The last chunk repeats its last episode, so that all chunks share one compilation.
        padded = [jnp.asarray(np.pad(i, (0, CHUNK - real), mode="edge")) for i in ids]
        made = jax.device_get(_simulate(key, *padded))
        x, label, mos = (a[:real].reshape(-1, *a.shape[2:]) for a in made)
        yield make_table(x, label, np.repeat(ids[0], SETTINGS.examples()), mos)
        done(real)


@jax.jit
def _simulate(key: Any, site: Any, number: Any) -> episodes.Windows:
    one = functools.partial(episodes.examples, settings=SETTINGS)
    return jax.vmap(one, (None, 0, 0))(key, site, number)
