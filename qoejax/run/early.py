"""How soon an attack is noticed: from its onset in a simulated episode to the first alarm.

Every second of an episode ends a window, and every detector gives each window a number; an alarm is
a number above a threshold, and each detector's own is set so that one in a thousand windows of
benign episodes is above it. Episodes are of the sites of the training rows, and of none of their
episodes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from qoejax.data.builders.simulated_iot.configs import CONFIGS
from qoejax.data.builders.simulated_iot.simulated_iot_dataset_builder import SEED, SETTINGS
from qoejax.data.table import make_table
from qoejax.objectives import onset
from qoejax.run import build, plots
from qoejax.run.baselines import CONTENDERS
from qoejax.run.studies import fits
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, once, over_blocks, scaled, seeds_of
from qoejax.simulate import episodes
from qoejax.types import Examples

DATASET = "simulated_iot/small"
RATE = 1e-3
"""Share of benign windows that may be alarms."""

HYBRID, CUSUM = "hybrid", "CUSUM on rate"
LEARNED = {HYBRID: "qoenet", "LSTM": "lstm", "boosting": "lightgbm"}
"""Contenders of ``run.baselines``, each as it is there before any tuning."""

DRIFTS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of CUSUM, in standard deviations; the one that is soonest on the tuning episodes is taken."""

SEEDS = 2
"""Of what draws at random, at most."""

HISTORY, TUNING, BENIGN, TEST = 10_000, 20_000, 30_000, 40_000
"""First episode's number of each kind at every site: the data set has none above 200."""

PER_SITE = {HISTORY: 10, TUNING: 5, BENIGN: 40, TEST: 25}
LEAST_BENIGN = 2 * round(1 / RATE)
CHUNK = 80
HORIZON = 28
"""Seconds after the onset that every episode has."""


class Watched(NamedTuple):
    """Episodes and the second, from 0, in which each one's attack begins (-1: none)."""

    x: Float[np.ndarray, "E W F"]
    onset: Int[np.ndarray, " E"]
    site: Int[np.ndarray, " E"]


@functools.lru_cache(maxsize=4)
def watch(first: int, per_site: int, benign: bool) -> Watched:
    """Episodes of the sites of ``DATASET``: benign ones, or those with an attack."""
    sites = np.arange(CONFIGS[DATASET.partition("/")[2]].sites)
    site, number = np.repeat(sites, per_site), np.tile(first + np.arange(per_site), len(sites))
    label = 0 if benign else None
    parts = []
    for start in range(0, len(site), CHUNK):
        ids = (a[start : start + CHUNK] for a in (site, number))
        # The last chunk repeats its last episode, so that all chunks share one compilation.
        padded = [np.pad(a, (0, CHUNK - len(a)), mode="edge") for a in ids]
        parts.append(jax.device_get(_simulate(*map(jnp.asarray, padded), label)))
    x, labels = (np.concatenate(p)[: len(site)] for p in zip(*parts, strict=True))
    attacked = (labels > 0).any(1)
    began = np.where(attacked, (labels > 0).argmax(1), -1)
    kept = ~attacked if benign else attacked
    return Watched(x[kept], began[kept], site[kept])


@functools.partial(jax.jit, static_argnums=2)
def _simulate(site: Any, number: Any, label: int | None) -> tuple[Any, Any]:
    key = jax.random.key(SEED, impl="threefry2x32")
    given = None if label is None else jnp.int32(label)

    def one(site: Any, number: Any) -> Any:
        e = episodes.episode(key, site, number, episodes.World(), label=given)
        return e.x, e.label

    return jax.vmap(one)(site, number)


Score = Callable[[Watched], Float[np.ndarray, "E W"]]
"""A number for the window that each second ends; -inf while there is no whole window yet."""


def standardised(history: Watched) -> Score:
    """Log rate of each second against the benign history of its own site."""
    rate = np.log1p(history.x[..., 0])
    sites = np.unique(history.site)
    own = [rate[history.site == s] for s in sites]
    mean, std = (np.array([f(o) for o in own]) for f in (np.mean, np.std))

    def score(watched: Watched) -> Float[np.ndarray, "E W"]:
        i = np.searchsorted(sites, watched.site)[:, None]
        return (np.log1p(watched.x[..., 0]) - mean[i]) / std[i]

    return score


def cusum(z: Score, drift: float) -> Score:
    """CUSUM of standardised rates, heard from the first whole window on, like the others."""

    def score(watched: Watched) -> Float[np.ndarray, "E W"]:
        sums = onset.cusum(z(watched), drift)
        sums[:, : SETTINGS.length - 1] = -np.inf
        return sums

    return score


def learned(name: str, task: fits.Task, seed: int) -> Score:
    """Log odds of attack that a fitted contender gives each window."""
    predict, data = CONTENDERS[LEARNED[name]].fit(task.problem, {}, seed), task.data
    benign = data.spec.label_names.index(data.spec.benign)

    def score(watched: Watched) -> Float[np.ndarray, "E W"]:
        count, steps, _ = watched.x.shape
        said = predict(_windows(data, watched)).probability
        assert said is not None  # all of LEARNED classify
        p = np.maximum(said.astype(np.float64), np.finfo(np.float64).tiny)
        odds = np.log(np.delete(p, benign, 1).sum(1)) - np.log(p[:, benign])
        out = np.full((count, steps), -np.inf)
        out[:, SETTINGS.length - 1 :] = odds.reshape(count, -1)
        return out

    return score


def _windows(data: build.Data, watched: Watched) -> Examples:
    """Every window of every episode, as the contenders take them."""
    x = np.lib.stride_tricks.sliding_window_view(watched.x, SETTINGS.length, axis=1)
    x = np.ascontiguousarray(np.moveaxis(x, -1, 2)).reshape(-1, SETTINGS.length, x.shape[2])
    rows = make_table(
        x, np.zeros(len(x), int), np.zeros(len(x), int),
        np.zeros((len(x), len(data.spec.services)), np.float32),
    )  # fmt: skip
    return build.examples(data.spec, data.stats, rows)


def judge(score: Score, benign: Watched, attacked: Watched) -> dict[str, Any]:
    """Threshold by the first half of the benign episodes; the false positive rate by the second.

    Both halves have episodes of every site.
    """
    order = np.r_[0 : len(benign.onset) : 2, 1 : len(benign.onset) : 2]
    everything = Watched(
        *(np.concatenate([b[order], a]) for b, a in zip(benign, attacked, strict=True))
    )
    # In one call: contenders compile for each number of windows.
    calm, judged, tried = np.split(score(everything), [(len(order) + 1) // 2, len(order)])
    since = SETTINGS.length - 1
    limit = onset.threshold(calm[:, since:].ravel(), RATE)
    delay, found = onset.delays(tried > limit, attacked.onset)
    return {"delay": delay, "found": found, "rate": float((judged[:, since:] > limit).mean())}


def verdict(found: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[str, str]:
    """Holds if the hybrid's median is not above the best baseline's, and its mean not clearly so.

    Args:
      found: by detector, ``delay`` and ``found`` of S seeds and E episodes.
    """
    medians = {name: _median(each) for name, each in found.items()}
    mean = {name: each["delay"].mean(0) for name, each in found.items()}
    best = min((n for n in found if n != HYBRID), key=lambda n: (medians[n], mean[n].mean()))
    gap, low, high = over_blocks(mean[HYBRID] - mean[best])
    holds = medians[HYBRID] <= medians[best] and low <= 0
    reason = (
        f"Median delay {medians[HYBRID]:g} s, against {medians[best]:g} s of the best baseline "
        f"({best}); mean difference {gap:+.2f} s [{low:.2f}, {high:.2f}] over "
        f"{len(mean[best])} episodes, undetected ones counted to their end."
    )
    return (HOLDS if holds else FAILS), reason


def _median(each: Mapping[str, np.ndarray]) -> float:
    delay, found = each["delay"], each["found"]
    return float(np.median([onset.median(d, f) for d, f in zip(delay, found, strict=True)]))


def study(context: Context) -> Outcome:
    """Delay of the first alarm at a false positive rate of 1e-3 a window, by detector.

    ``context.configs`` must say how the hybrid is trained on ``DATASET``.
    """
    task, several = fits.task(context, DATASET), seeds_of(context, SEEDS)
    seeds = {n: several if CONTENDERS[c].seeded({}) else 1 for n, c in LEARNED.items()}
    seeds |= {CUSUM: 1}
    jobs = [(name, seed) for seed in range(several) for name, n in seeds.items() if seed < n]
    fits.side_by_side(context, task, detected, jobs)
    results: dict[str, dict[str, np.ndarray]] = {}
    for name, count in seeds.items():
        each = [detected(context, task, name, seed) for seed in range(count)]
        results[name] = {k: np.array([r[k] for r in each]) for k in ("delay", "found", "rate")}
    said, reason = verdict(results)
    plots.save(curves(results), context.folder / "early.png")
    return Outcome(said, reason, [_row(*item) for item in results.items()], ("early.png",))


def detected(context: Context, task: fits.Task, name: str, seed: int) -> dict[str, Any]:
    """What ``judge`` says of a detector, kept."""
    sizes = _sizes(context.scale)
    work = {"detector": name, "seed": seed, "sizes": list(sizes.values()), "rate": RATE,
            "config": build.plain_config(task.config)}  # fmt: skip
    del work["config"]["data"]["dir"]

    def compute() -> dict[str, Any]:
        def seen(first: int) -> Watched:
            return watch(first, sizes[first], first in (HISTORY, BENIGN))

        if name == CUSUM:
            score = _tuned_cusum(seen(HISTORY), seen(TUNING), seen(BENIGN))
        else:
            score = learned(name, task, seed)
        return judge(score, seen(BENIGN), seen(TEST))

    return once(context.folder, work, compute)


def _sizes(scale: float) -> dict[int, int]:
    """Episodes of each kind at every site; benign ones are enough for the rate at any scale."""
    sizes = {first: scaled(scale, n, 2) for first, n in PER_SITE.items()}
    sites = CONFIGS[DATASET.partition("/")[2]].sites
    needed = 2 * LEAST_BENIGN / (sites * (SETTINGS.seconds - SETTINGS.length + 1))
    sizes[BENIGN] = max(sizes[BENIGN], int(np.ceil(needed)))
    return sizes


def _tuned_cusum(history: Watched, tuning: Watched, benign: Watched) -> Score:
    z = standardised(history)
    scores = [cusum(z, drift) for drift in DRIFTS]
    return min(scores, key=lambda score: float(judge(score, benign, tuning)["delay"].mean()))


def _row(name: str, each: Mapping[str, np.ndarray]) -> dict[str, Any]:
    median = _median(each)
    return {
        "detector": name,
        "median delay, s": median if np.isfinite(median) else "not reached",
        "mean delay, s": float(each["delay"].mean()),
        "detected": float(each["found"].mean()),
        "within 5 s": float((each["found"] & (each["delay"] <= 5)).mean()),
        "false positive rate": float(each["rate"].mean()),
        "seeds": len(each["delay"]),
    }


def curves(found: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Share of attacks detected by seconds since their onset."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    seconds = np.arange(HORIZON + 1)
    for name, each in found.items():
        by = [(each["found"] & (each["delay"] <= s)).mean() for s in seconds]
        axes.step(seconds, by, where="post", label=name, lw=2.2 if name == HYBRID else 1.4)
    axes.set(
        xlabel="seconds since the onset", ylabel="share of attacks with an alarm",
        xlim=(0, HORIZON), ylim=(0, 1),
    )  # fmt: skip
    axes.axhline(0.5, color=plots.GREY, lw=0.8, ls=":")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center right")
    return figure
