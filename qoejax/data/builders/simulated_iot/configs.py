"""The configs of simulated_iot: which sites and episodes, where, which attacks. NumPy only."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from qoejax.simulate import mixes
from qoejax.simulate.episodes import ALL_ATTACKS
from qoejax.simulate.ranges import Range
from qoejax.simulate.scenarios import SCENARIOS, Scenario

TEST_EVERY = 5
"""One episode in so many is a test episode, at every site."""


class Part(NamedTuple):
    """A split: these episodes at these sites."""

    sites: Int[np.ndarray, " s"]
    numbers: Int[np.ndarray, " e"]
    scenario: Scenario
    attacks: tuple[int, ...]


class Config(NamedTuple):
    """What a config is made of.

    Attributes:
        why: one line for people.
        sites: number of sites.
        episodes: of each site, train and test.
        scenario: where sites come from.
        attacks: labels that occur in training besides benign.
        new_sites: None, or the scenario of test sites, which are then other sites.
        new_attacks: None, or the labels that occur in the test split instead.
        recorded: attacks are drawn from rows of the user's files.
    """

    why: str
    sites: int = 20
    episodes: int = 80
    scenario: Scenario = SCENARIOS["mixed"]
    attacks: tuple[int, ...] = ALL_ATTACKS
    new_sites: Scenario | None = None
    new_attacks: tuple[int, ...] | None = None
    recorded: bool = False


def _unseen(label: int) -> Config:
    others = tuple(i for i in ALL_ATTACKS if i != label)
    why = f"no {mixes.LABELS[label]} in training, no other attack in the test split"
    return Config(why, attacks=others, new_attacks=(label,))


_SLOW = SCENARIOS["mixed"]._replace(capacity_mbps=Range(2, 10, log=True))
_FAST = SCENARIOS["mixed"]._replace(capacity_mbps=Range(10, 40, log=True))

CONFIGS: dict[str, Config] = {
    "small": Config("20 sites of 80 episodes, 60 s each"),
    "standard": Config("100 sites of 200 episodes, 60 s each", 100, 200),
    "tiny": Config("3 sites of 10 episodes, 60 s each", 3, 10),
    **{
        name: Config(f"20 sites of 80 episodes in the scenario {name}", scenario=scenario)
        for name, scenario in SCENARIOS.items()
        if name != "mixed"
    },
    "unseen_capacity": Config(
        "trained at sites of 2 to 10 Mb/s, tested at others of 10 to 40 Mb/s",
        scenario=_SLOW,
        new_sites=_FAST,
    ),
    **{f"unseen_{name}": _unseen(i) for i, name in enumerate(mixes.LABELS) if i},
    "bootstrap": Config("attacks drawn from recorded rows of CICIoT2023", recorded=True),
}
"""The first is the default; ``small`` is a part of ``standard``."""


def parts(config: Config) -> dict[str, Part]:
    """The train and the test split of a config; no episode of a site is in both."""
    numbers = np.arange(config.episodes, dtype=np.int32)
    is_test = numbers % TEST_EVERY == TEST_EVERY - 1
    sites = np.arange(config.sites, dtype=np.int32)
    elsewhere = config.new_sites is not None
    return {
        "train": Part(sites, numbers[~is_test], config.scenario, config.attacks),
        "test": Part(
            sites + config.sites if elsewhere else sites,
            numbers[is_test],
            config.new_sites or config.scenario,
            config.new_attacks or config.attacks,
        ),
    }
