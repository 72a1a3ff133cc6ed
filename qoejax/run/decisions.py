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
JUDGED = 1
"""Index of the blur that the claim is judged at; the others are reported."""

MOST_SEEDS = 3
"""More fits than these do not narrow intervals, which are over scenes."""

BELIEVES = {
    # Thresholds get the joint net's probabilities, the better of the two detectors: what is then
    # won over them is won by weighing experience.
    "allow": "joint", "ids": "joint", "cost_bayes": "joint", "joint": "joint",
    "qoe_only": "separate", "separate_product": "separate",
}  # fmt: skip
"""What each policy believes (``responses.view``); the oracle knows."""


class Sizes(NamedTuple):
    """Scenes to learn from, steps of training, and scenes to tune on and as many to test on."""

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
        max(400, round(3000 * scale)), max(300, round(2000 * scale)), max(24, round(80 * scale))
    )


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
    return jax.jit(lambda fits, cell, damage, knobs: every(fits, *cell, damage, knobs))


outcomes = jax.jit(jax.vmap(outcome))


@functools.partial(jax.jit, static_argnames="count")
def make_cell(key: Array, prevalence: Array, blur: Array, count: int) -> Cell:
    """``count`` scenes. The same key draws the same scenes at every prevalence and blur."""

    def one(key: Array) -> Cell:
        scene = sources.scene(key, prevalence, blur)
        return Cell(scene, responses.see(scene, prevalence, blur))

    return jax.vmap(one)(jax.random.split(key, count))


def tuned(
    policy: str, fits: dict[str, Fit], validation: Cell, test: Cell
) -> list[tuple[Judged, list[float]]]:
    """What a policy does on the test scenes at each of ``DAMAGES``, and the knobs it got.

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
        found.append((play(test, asked, table[best]), table[best].tolist()))
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


def run_seed(seed: int, work: Sizes) -> dict[str, Any]:
    """Fits the nets, tunes every policy in every cell, and plays all test scenes.

    Returns:
        ``utility[policy][blur][prevalence][damage]``: of each test scene; ``benign_mos``,
        ``alarms`` (share of benign sources), ``attack_s`` (a scene's admitted attack-seconds)
        alike, as means; ``auc`` by blur; ``rmse`` of MOS.
    """
    start = time.perf_counter()
    data = responses.samples(2 * seed + 1000, work.training, PREVALENCES, BLURS)
    key = jax.random.key(seed)
    fits = {name: responses.fit(name, data, key, work.steps) for name in responses.NETS}
    fresh = responses.samples(2 * seed + 1001, 200, PREVALENCES, BLURS)
    LOG.info("seed %d: nets fitted, %.0f s", seed, time.perf_counter() - start)
    found: dict[str, Any] = {"rmse": error(fits, fresh), "auc": [], "knobs": {}}
    names = ("utility", "benign_mos", "alarms", "attack_s")
    found |= {name: {p: [] for p in policies.POLICIES} for name in names}
    for blur in BLURS:
        cells = []
        for each in (found[name] for name in names):
            for rows in each.values():
                rows.append([])
        for prevalence in PREVALENCES:
            # Every seed's nets play the same scenes.
            validation, test = (
                make_cell(
                    jax.random.key(i), jnp.float32(prevalence), jnp.float32(blur), work.scenes
                )
                for i in range(2)
            )
            cells.append(test)
            for policy in policies.POLICIES:
                played = tuned(policy, fits, validation, test)
                _record(found, policy, [judged for judged, _ in played])
                where = f"{policy}, blur {blur:g}, prevalence {prevalence:g}"
                found["knobs"][where] = [knobs for _, knobs in played]
        found["auc"].append(quality(fits, cells))
        LOG.info("seed %d: blur %.1f, %.0f s", seed, blur, time.perf_counter() - start)
    return found


def _record(found: dict[str, Any], policy: str, played: Sequence[Judged]) -> None:
    pairs = list(zip(played, DAMAGES, strict=True))
    found["utility"][policy][-1].append([utility(j, d).tolist() for j, d in pairs])
    found["benign_mos"][policy][-1].append([float(j.benign.sum() / j.count.sum()) for j in played])
    found["alarms"][policy][-1].append([float(j.alarms.sum() / j.count.sum()) for j in played])
    seconds = [sources.ACTED_S * float(j.admitted.mean()) for j in played]
    found["attack_s"][policy][-1].append(seconds)


def compare(utility: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row a cell of the grid: utilities, and joint's gain over each rival with its interval.

    Args:
        utility: of each policy [blur, prevalence, damage, scene], averaged over seeds.
    """
    rows = []
    for b, p, d in np.ndindex(len(BLURS), len(PREVALENCES), len(DAMAGES)):
        means = {name: float(u[b, p, d].mean()) for name, u in utility.items()}
        gains = {
            rival: studies.over_blocks(utility["joint"][b, p, d] - utility[rival][b, p, d])
            for rival in policies.RIVALS
        }
        nearest = max(policies.RIVALS, key=lambda rival: means[rival])
        rows.append(
            {"blur": BLURS[b], "prevalence": PREVALENCES[p], "damage": DAMAGES[d]}
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
    seeds = range(min(context.seeds, MOST_SEEDS))
    grid = {"damages": DAMAGES, "prevalences": PREVALENCES, "blurs": BLURS}
    runs = [
        studies.once(
            context.folder, {"study": "decisions", "seed": seed, **work._asdict(), **grid},
            functools.partial(run_seed, seed, work),
        )
        for seed in seeds
    ]  # fmt: skip

    def mean(name: str, policy: str) -> np.ndarray:
        return np.mean([run[name][policy] for run in runs], axis=0)

    utilities = {policy: mean("utility", policy) for policy in policies.POLICIES}
    auc = [float(np.mean([run["auc"][b]["joint"] for run in runs])) for b in range(len(BLURS))]
    rows = compare(utilities)
    for row in rows:
        at = [BLURS.index(row["blur"]), PREVALENCES.index(row["prevalence"])]
        cell = (*at, DAMAGES.index(row["damage"]))
        row["auc"] = round(auc[at[0]], 3)
        for policy in ("joint", row["best rival"]):
            who = "joint" if policy == "joint" else "rival"
            for name in ("benign_mos", "alarms", "attack_s"):
                row[f"{who} {name}"] = round(float(mean(name, policy)[cell]), 3)
    figure = "decisions.png"
    plots.save(plots.phases(rows, auc), context.folder / figure)
    judged = [row for row in rows if row["blur"] == BLURS[JUDGED]]
    won = sum(row["above all"] for row in judged)
    verdict = studies.HOLDS if 2 * won >= len(judged) else studies.FAILS
    return studies.Outcome(verdict, _reason(judged, won, auc[JUDGED], runs), rows, (figure,))


def _reason(judged: Sequence[Mapping[str, Any]], won: int, auc: float, runs: Any) -> str:
    beaten = {r: sum(row[f"over {r}, low"] > 0 for row in judged) for r in policies.RIVALS}
    each = ", ".join(f"{name} in {count}" for name, count in beaten.items())
    joint, apart, spread = (
        np.mean([run["rmse"][name] for run in runs]) for name in ("joint", "separate", "spread")
    )
    return (
        f"At an AUC of {auc:.3f} joint is above every rival, interval included, in {won} of "
        f"{len(judged)} cells of damage x prevalence ({each}). RMSE of benign users' MOS under "
        f"random actions: joint {joint:.3f}, separate {apart:.3f}, of a spread of {spread:.3f}."
    )
