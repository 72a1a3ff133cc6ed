"""Draws what the simulator does: episodes second by second, scores by class.

    python -m experiments.simulate --output=docs/figures

Writes ``episodes.png`` (backlog, loss, scores and features of one episode of several classes) and
``scores.png`` (distributions of every service's score by class) for a scenario.
"""

import functools
import pathlib
from typing import Any, NamedTuple

from absl import flags

from experiments import cli

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the PNG files.", required=True)
_SCENARIO = flags.DEFINE_string("scenario", "mixed", "A name of qoejax.simulate.scenarios.")
_SITES = flags.DEFINE_integer("sites", 20, "Sites.", lower_bound=1)
_EPISODES = flags.DEFINE_integer("episodes", 40, "Episodes of each site.", lower_bound=1)

SHOWN = {"benign": 0.1, "flood": 0.1, "fragmentation": 0.1, "scan": 0.5}
"""Classes of which an episode is drawn: the one with this quantile of the mean voice MOS."""


class Made(NamedTuple):
    """Episodes [E] on the host, and the label that each has while its attack lasts."""

    episodes: Any
    attack: Any


def make(scenario: str, sites: int, episodes: int) -> Made:
    """Simulates every episode of every site of a scenario.

    Raises:
      RunError: no such scenario.
    """
    import jax
    import numpy as np

    from qoejax.run.errors import RunError
    from qoejax.simulate import episodes as simulated
    from qoejax.simulate.scenarios import SCENARIOS

    if scenario not in SCENARIOS:
        raise RunError(f"--scenario={scenario}: expected one of {', '.join(SCENARIOS)}")
    world = simulated.World(SCENARIOS[scenario])
    one = functools.partial(simulated.episode, world=world)
    run = jax.jit(jax.vmap(one, (None, None, 0)))
    key = jax.random.key(0, impl="threefry2x32")
    number = np.arange(episodes, dtype=np.int32)
    made = [jax.device_get(run(key, np.int32(site), number)) for site in range(sites)]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *made)
    return Made(whole, whole.label.max(1))


def traces(made: Made) -> Any:
    """Delay, loss, scores and packet rate of one episode of each of ``SHOWN``."""
    import matplotlib.pyplot as plt
    import numpy as np

    from qoejax.simulate.mixes import LABELS
    from qoejax.simulate.probes import PROBES

    e = made.episodes
    figure, grid = plt.subplots(
        4, len(SHOWN), figsize=(10, 6.4), dpi=85, sharex=True, sharey="row", layout="constrained"
    )
    second = np.arange(e.label.shape[1])
    for column, (name, quantile) in enumerate(SHOWN.items()):
        own = np.flatnonzero(made.attack == LABELS.index(name))
        i = own[np.argsort(e.score[own, :, 0].mean(1))[int(quantile * len(own))]]
        top, middle, scores, seen = grid[:, column]
        top.plot(second, e.delay_ms[i], color="#2f6db3")
        middle.plot(second, e.loss[i], color="#b8423f")
        for q, (service, probe) in enumerate(PROBES.items()):
            score = 1 + 4 * e.score[i, :, q] if probe.machine else e.score[i, :, q]
            label = "telemetry (1 + 4 QoME)" if probe.machine else service
            scores.plot(second, score, lw=1.2, label=label, ls="--" if probe.machine else "-")
        seen.plot(second, e.x[i, :, 0], color="#7a7f87")
        attack = e.label[i] > 0
        for axes in grid[:, column]:
            axes.fill_between(
                second, 0, 1, where=attack, transform=axes.get_xaxis_transform(),
                color="#d9822b", alpha=0.18, lw=0,
            )  # fmt: skip
            axes.spines[["top", "right"]].set_visible(False)
        top.set_title(name, fontsize=10)
        seen.set(xlabel="second", yscale="log")
    for axes, text in zip(
        grid[:, 0], ("delay, ms", "share lost", "score", "Rate seen, packets/s"), strict=True
    ):
        axes.set_ylabel(text)
    grid[2, -1].legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def distributions(made: Made) -> Any:
    """Quantiles of every service's score in the seconds of each class."""
    import matplotlib.pyplot as plt

    from qoejax.simulate.mixes import LABELS
    from qoejax.simulate.probes import PROBES

    e = made.episodes
    figure, panels = plt.subplots(
        1, len(PROBES), figsize=(11, 3.6), sharey=True, layout="constrained"
    )
    for q, (axes, (service, probe)) in enumerate(zip(panels, PROBES.items(), strict=True)):
        by_class = [e.score[..., q][e.label == i] for i in range(len(LABELS))]
        axes.boxplot(
            by_class, orientation="horizontal", whis=(5, 95), showfliers=False, showmeans=True,
            widths=0.6, medianprops={"color": "#b8423f"},
            meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "#2f6db3",
                       "markeredgecolor": "#2f6db3"},
        )  # fmt: skip
        axes.set_yticks(range(1, len(LABELS) + 1), LABELS)
        axes.set(
            title=service, xlabel="QoME" if probe.machine else "MOS",
            xlim=(-0.03, 1.03) if probe.machine else (0.9, 5.1),
        )  # fmt: skip
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    return figure


def main() -> dict[str, Any]:
    """Draws both figures, and says where they are."""
    from qoejax.run import plots

    made = make(_SCENARIO.value, _SITES.value, _EPISODES.value)
    folder = pathlib.Path(_OUTPUT.value)
    paths = {}
    for name, draw in (("episodes", traces), ("scores", distributions)):
        paths[name] = folder / f"{name}.png"
        plots.save(draw(made), paths[name])
    return {
        "scenario": _SCENARIO.value,
        "episodes": len(made.attack),
        "figures": {name: str(path) for name, path in paths.items()},
    }


if __name__ == "__main__":
    cli.run(main)
