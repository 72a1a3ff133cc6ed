"""Do decisions gain when detection and experience are weighed together? A closed loop answers.

Policies see the same scenes of twelve sources on one bottleneck (``simulate.sources``), choose an
action for each, and get the utility that then comes about (``simulate.acts``), over a grid of what
an attack costs, how common compromised sources are, and how well they can be told.
"""

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int

from qoejax.qoe import policies
from qoejax.run import plots, responses
from qoejax.run import study as studies
from qoejax.run.responses import CLASSES, Fit, Seen
from qoejax.simulate import acts, sources

LOG = logging.getLogger("qoejax")

DAMAGES = (0.5, 2.0, 5.0, 10.0)
PREVALENCES = (0.05, 0.1, 0.2, 0.4)
BLURS = (0.5, 3.0, 8.0)
JUDGED = 3.0
"""The blur that the claim is judged at; the others are reported, where there is time for them."""

FRESH = 10_000
"""Seed of scenes that measure the nets; training scenes have the seeds of the nets."""

TESTS = 4
"""Batches of test scenes: with one, gains of 0.03 MOS points are within the interval."""

MOST_SEEDS = 3
"""More fits than these do not narrow intervals, which are over scenes."""

BELIEVES = {
    # Thresholds get the joint net's probabilities, the better of the two detectors: what is then
    # won over them is won by weighing experience.
    "allow": "joint", "ids": "joint", "cost_bayes": "joint", "joint": "joint",
    "qoe_only": "separate", "separate_product": "separate",
}  # fmt: skip
"""What each policy believes (``responses.view``); the oracle knows."""

SHOWN = (
    "blur", "prevalence", "damage", *policies.RIVALS, "joint", "oracle", "best rival",
    "gain", "low", "high", "above all",
)  # fmt: skip
"""Of the columns of a row."""


class Sizes(NamedTuple):
    """Scenes to learn from, steps of training, and scenes to tune on.

    ``TESTS`` times as many are tested on.
    """

    training: int
    steps: int
    scenes: int


class Judged(NamedTuple):
    """What actions on a scene of N sources came to.

    Attributes:
        benign: MOS of users of benign sources, summed.
        admitted: compromised sources that were let through; a limited one counts its share.
        alarms: benign sources that were blocked or limited.
        count: benign sources.
    """

    benign: Float[Array, ""]
    admitted: Float[Array, ""]
    alarms: Int[Array, ""]
    count: Int[Array, ""]


class Cell(NamedTuple):
    """E scenes, and what is seen of them."""

    scene: sources.Scene
    seen: Seen


def sizes(scale: float) -> Sizes:
    """Work at a scale; at least as much as means anything."""
    return Sizes(
        studies.scaled(scale, 3000, 400),
        studies.scaled(scale, 2000, 300),
        studies.scaled(scale, 80, 24),
    )


def blurs(scale: float) -> tuple[float, ...]:
    """Those of ``BLURS`` that a scale pays for, in their order."""
    order = sorted(BLURS, key=lambda blur: blur != JUDGED)
    return tuple(sorted(order[: studies.scaled(scale, len(order))]))


def outcome(scene: sources.Scene, actions: Int[Array, " N"]) -> Judged:
    """Acts, and counts what came of it."""
    mos = acts.act(scene, actions).mos
    benign = scene.label == 0
    return Judged(
        benign=jnp.where(benign, mos, 0.0).sum(),
        admitted=acts.admitted(scene.label, actions),
        alarms=(benign & (actions > 0)).sum(),
        count=benign.sum(),
    )


def utility(judged: Judged, damage: float) -> np.ndarray:
    """Mean utility of a source of each scene, MOS points; ``decide.expected_utility`` over N."""
    return (np.asarray(judged.benign) - damage * np.asarray(judged.admitted)) / sources.SOURCES


@functools.cache
def chooser(policy: str) -> Callable[..., Array]:
    """``choose(fits, cell, damage, knobs) -> actions[E,N]`` of a policy, compiled."""
    rule = policies.POLICIES[policy]

    def one(fits: dict[str, Fit], scene: Any, seen: Seen, damage: Array, knobs: Array) -> Array:
        prices = acts.prices(damage, CLASSES, sources.SOURCES)
        if policy == "oracle":
            truth = jax.nn.one_hot(scene.label, CLASSES)
            return rule(policies.View(truth, lambda a: acts.act(scene, a).mos), prices, knobs)
        return rule(responses.view(fits, seen, BELIEVES[policy]), prices, knobs)

    every = jax.vmap(one, (None, 0, 0, None, None))
    return jax.jit(
        lambda fits, cell, damage, knobs: every(fits, cell.scene, cell.seen, damage, knobs)
    )


outcomes = jax.jit(jax.vmap(outcome))


@functools.partial(jax.jit, static_argnames="count")
def make_cell(key: Array, prevalence: Array, blur: Array, count: int) -> Cell:
    """``count`` scenes. The same key draws the same scenes at every prevalence and blur."""

    def one(key: Array) -> Cell:
        scene = sources.scene(key, prevalence, blur)
        return Cell(scene, responses.see(scene, prevalence, blur))

    return jax.vmap(one)(jax.random.split(key, count))


def tuned(
    policy: str, fits: dict[str, Fit], validation: Cell, tests: Sequence[Cell]
) -> list[tuple[Judged, list[float]]]:
    """What a policy does on all test scenes at each of ``DAMAGES``, and the knobs it got.

    Knobs are those of the greatest mean utility on the validation scenes, at that damage.
    """
    choose, table = chooser(policy), policies.KNOBS[policy]
    blind = policy in ("allow", "ids", "qoe_only", "oracle")

    def play(cell: Cell, damage: float, knobs: np.ndarray) -> Judged:
        actions = choose(fits, cell, jnp.float32(damage), jnp.asarray(knobs))
        return jax.device_get(outcomes(cell.scene, actions))

    found, tried = [], []
    for damage in DAMAGES:
        # The oracle's greedy ceiling is that of the greatest damage: it stops every attack.
        asked = max(DAMAGES) if blind else damage
        if len(table) > 1 and not (tried and blind):
            tried = [play(validation, asked, knobs) for knobs in table]
        best = np.argmax([utility(one, damage).mean() for one in tried]) if tried else 0
        played = [play(test, asked, table[best]) for test in tests]
        judged = jax.tree.map(lambda *parts: np.concatenate(parts), *played)
        found.append((judged, table[best].tolist()))
    return found


def quality(fits: dict[str, Fit], cells: Sequence[Cell]) -> dict[str, float]:
    """How well compromised sources are told, over all cells: AUC of both detectors."""
    found = {}
    for believes in ("joint", "separate"):
        probability = jax.jit(
            jax.vmap(lambda f, s, b=believes: responses.view(f, s, b).probability, (None, 0))
        )
        p = np.concatenate([np.asarray(probability(fits, c.seen)[..., 0]).ravel() for c in cells])
        hostile = np.concatenate([np.asarray(c.scene.label).ravel() > 0 for c in cells])
        wins = scipy.stats.mannwhitneyu(1 - p[hostile], 1 - p[~hostile]).statistic
        found[believes] = float(wins / (hostile.sum() * (~hostile).sum()))
    return found


def error(fits: dict[str, Fit], data: responses.Sample) -> dict[str, float]:
    """RMSE of benign users' MOS under random actions, of both responses and of the mean."""
    found = {}
    kept = (data.actions != 2) & (data.label == 0)[:, None]
    for believes in ("joint", "separate"):

        def one(seen: Seen, actions: Array, believes: str = believes) -> Array:
            return jax.vmap(responses.view(fits, seen, believes).respond)(actions)

        mos = np.asarray(jax.jit(jax.vmap(one))(data.seen, data.actions))
        found[believes] = float(np.sqrt(np.mean((mos - data.mos)[kept] ** 2)))
    return found | {"spread": float(np.std(data.mos[kept]))}


def learn(seed: int, work: Sizes) -> dict[str, Fit]:
    """Fits every net to the same scenes with random actions."""
    start = time.perf_counter()
    data = responses.samples(seed, work.training, PREVALENCES, BLURS)
    fits = {
        name: responses.fit(name, data, jax.random.key(seed), work.steps) for name in responses.NETS
    }
    LOG.info("seed %d: nets fitted, %.0f s", seed, time.perf_counter() - start)
    return fits


def run_blur(fits: dict[str, Fit], blur: float, scenes: int) -> dict[str, Any]:
    """Tunes every policy in every cell at one blur, and plays the test scenes.

    Every seed's nets play the same scenes.

    Returns:
        ``utility[policy][prevalence][damage]``: of each test scene; alike, as means,
        ``benign_mos``, ``alarms`` (share of benign sources) and ``attack_s`` (attack-seconds
        admitted in a scene); ``knobs`` alike; ``auc`` and ``rmse`` of MOS.
    """
    start = time.perf_counter()
    played: dict[str, list[Any]] = {policy: [] for policy in policies.POLICIES}
    cells = []
    for prevalence in PREVALENCES:
        at = jnp.float32(prevalence), jnp.float32(blur)
        validation, *tests = (make_cell(jax.random.key(i), *at, scenes) for i in range(1 + TESTS))
        cells += tests
        for policy, rows in played.items():
            rows.append(tuned(policy, fits, validation, tests))
    fresh = responses.samples(FRESH, 200, PREVALENCES, [blur])
    LOG.info("blur %g: every policy played, %.0f s", blur, time.perf_counter() - start)

    def each(figure: Callable[[Judged, float], Any]) -> dict[str, Any]:
        return {
            policy: [
                [figure(judged, d) for (judged, _), d in zip(row, DAMAGES, strict=True)]
                for row in rows
            ]
            for policy, rows in played.items()
        }

    return {
        "utility": each(lambda judged, damage: utility(judged, damage).tolist()),
        "benign_mos": each(lambda judged, _: float(judged.benign.sum() / judged.count.sum())),
        "alarms": each(lambda judged, _: float(judged.alarms.sum() / judged.count.sum())),
        "attack_s": each(lambda judged, _: sources.ACTED_S * float(judged.admitted.mean())),
        "knobs": {p: [[knobs for _, knobs in row] for row in rows] for p, rows in played.items()},
        "auc": quality(fits, cells),
        "rmse": error(fits, fresh),
    }


def run_seed(context: studies.Context, seed: int, work: Sizes) -> list[dict[str, Any]]:
    """What ``run_blur`` found at each blur, kept; nets are fitted where something is missing."""
    fits = functools.cache(lambda: learn(seed, work))
    grid = {"damages": DAMAGES, "prevalences": PREVALENCES, "blurs": BLURS, "tests": TESTS}
    return [
        studies.once(
            context.folder,
            {"study": "decisions", "seed": seed, "blur": blur, **work._asdict(), **grid},
            lambda blur=blur: run_blur(fits(), blur, work.scenes),
        )
        for blur in blurs(context.scale)
    ]


def compare(utility: Mapping[str, np.ndarray], at: Sequence[float] = BLURS) -> list[dict[str, Any]]:
    """A row a cell of the grid: utilities, and joint's gain over each rival with its interval.

    Args:
        utility: of each policy [blur, prevalence, damage, scene], averaged over seeds.
        at: The blurs.
    """
    rows = []
    for b, p, d in np.ndindex(len(at), len(PREVALENCES), len(DAMAGES)):
        means = {name: float(u[b, p, d].mean()) for name, u in utility.items()}
        gains = {
            rival: studies.over_blocks(utility["joint"][b, p, d] - utility[rival][b, p, d])
            for rival in policies.RIVALS
        }
        nearest = max(policies.RIVALS, key=lambda rival: means[rival])
        rows.append(
            {"blur": at[b], "prevalence": PREVALENCES[p], "damage": DAMAGES[d]}
            | {name: round(mean, 3) for name, mean in means.items()}
            | {"best rival": nearest}
            | dict(zip(("gain", "low", "high"), (round(v, 3) for v in gains[nearest]), strict=True))
            # Above the greatest of the rivals is above each of them.
            | {"above all": min(low for _, low, _ in gains.values()) > 0}
            | {f"over {rival}": round(gain[0], 3) for rival, gain in gains.items()}
            | {f"over {rival}, low": round(gain[1], 3) for rival, gain in gains.items()}
        )
    return rows


def study(context: studies.Context) -> studies.Outcome:
    """Whether joint decisions beat thresholds, experience alone and separate models.

    Pass: at the middle blur, utility of ``joint`` above that of each of ``policies.RIVALS``, with
    the paired 95 % interval over test scenes above 0, in at least half of the damage x prevalence
    grid.
    """
    work = sizes(context.scale)
    seeds = range(studies.seeds_of(context, MOST_SEEDS))
    played = blurs(context.scale)
    studies.side_by_side(context, run_seed, [(seed, work) for seed in seeds])
    runs = [run_seed(context, seed, work) for seed in seeds]

    def mean(name: str, policy: str) -> np.ndarray:
        return np.mean([[found[name][policy] for found in run] for run in runs], axis=0)

    utilities = {policy: mean("utility", policy) for policy in policies.POLICIES}
    auc = [float(np.mean([run[b]["auc"]["joint"] for run in runs])) for b in range(len(played))]
    rows = compare(utilities, played)
    for row in rows:
        at = [played.index(row["blur"]), PREVALENCES.index(row["prevalence"])]
        cell = (*at, DAMAGES.index(row["damage"]))
        row["auc"] = round(auc[at[0]], 3)
        for policy in ("joint", row["best rival"]):
            who = "joint" if policy == "joint" else "rival"
            for name in ("benign_mos", "alarms", "attack_s"):
                row[f"{who} {name}"] = round(float(mean(name, policy)[cell]), 3)
    figure = "decisions.png"
    plots.save(plots.phases(rows, auc), context.folder / figure)
    middle = played.index(JUDGED)
    judged = [row for row in rows if row["blur"] == JUDGED]
    won = sum(row["above all"] for row in judged)
    verdict = studies.HOLDS if 2 * won >= len(judged) else studies.FAILS
    return studies.Outcome(
        verdict,
        _reason(judged, won, auc[middle], [run[middle]["rmse"] for run in runs]),
        rows,
        (figure,),
        SHOWN,
    )


def _reason(
    judged: Sequence[Mapping[str, Any]], won: int, auc: float, rmse: Sequence[Mapping[str, float]]
) -> str:
    beaten = {r: sum(row[f"over {r}, low"] > 0 for row in judged) for r in policies.RIVALS}
    each = ", ".join(f"{name} in {count}" for name, count in beaten.items())
    joint, apart, spread = (
        np.mean([one[name] for one in rmse]) for name in ("joint", "separate", "spread")
    )
    return (
        f"At an AUC of {auc:.3f} joint is above every rival, interval included, in {won} of "
        f"{len(judged)} cells of damage x prevalence ({each}). RMSE of benign users' MOS under "
        f"random actions: joint {joint:.3f}, separate {apart:.3f}, of a spread of {spread:.3f}."
    )
