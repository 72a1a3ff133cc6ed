"""What malicious clients do: corrupted deltas, and poisoned rows. JAX; ``poison`` is NumPy.

An attack is an ``init/update`` pair over the deltas of a round, and a function of the rows that its
clients hold before training; adding one costs a function and an entry in one literal table. Every
attack has one number, its ``strength``.

Malicious clients know everything that others send in the round (the omniscient model): that is the
worst case, and what the papers of the rules assume.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from qoejax.fed.aggregate.base import average, both, gram, squared_distances, squared_norms
from qoejax.types import Cohort, Examples, Params


class Attack(NamedTuple):
    """One way to do harm.

    ``init(params) -> state`` and
    ``update(deltas, state, *, malicious, honest, params, key) -> (deltas, state)``: leaves of
    ``deltas`` are [K, *param], ``malicious`` and ``honest`` are bool[K] and exclude each other;
    rows that are not malicious come back as they were. ``params`` are those the clients started
    from.

    ``poison(examples, mine, classes) -> examples``: NumPy leaves; ``mine`` is bool[N] and says
    which rows malicious clients hold. Other rows come back as they were.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]
    poison: Callable[[Examples, np.ndarray, int], Examples]


class Adversary(NamedTuple):
    """An attack, and which of the P clients of the population carry it out."""

    attack: Attack
    malicious: Bool[Any, " P"]


def choose(population: int, fraction: float, seed: int) -> Bool[np.ndarray, " P"]:
    """Which clients are malicious: the nearest whole number to that fraction, drawn by the seed."""
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}: expected 0 <= fraction < 1")
    order = np.random.default_rng([seed, 0xBAD]).permutation(population)
    mask = np.zeros(population, bool)
    mask[order[: round(fraction * population)]] = True
    return mask


def corrupt(
    adversary: Adversary, deltas: Params, state: Any, cohort: Cohort, params: Params, key: Array
) -> tuple[Params, Any]:
    """The deltas of a cohort after the attack, and the attack's next state."""
    asked = cohort.weight > 0
    mask = jnp.asarray(adversary.malicious)[jnp.maximum(cohort.client_id, 0)]
    malicious = asked & mask & (cohort.client_id >= 0)
    return adversary.attack.update(
        deltas, state, malicious=malicious, honest=asked & ~malicious, params=params, key=key
    )


# Deltas.


def none(strength: float = 1.0) -> Attack:
    """Everybody is honest."""
    del strength
    return _by_rule(lambda deltas, malicious, honest, key: deltas)


def sign_flip(strength: float = 4.0) -> Attack:
    """Minus ``strength`` times the honest work (Li et al. 2019, RSA)."""

    def rule(deltas: Params, malicious: Array, honest: Array, key: Array) -> Params:
        del honest, key
        return _replace(deltas, malicious, jax.tree.map(lambda d: -strength * d, deltas))

    return _by_rule(rule)


def gaussian(strength: float = 1.0) -> Attack:
    """Independent normal noise of standard deviation ``strength`` (Blanchard et al. 2017)."""

    def rule(deltas: Params, malicious: Array, honest: Array, key: Array) -> Params:
        del honest
        return _replace(deltas, malicious, _noise(deltas, strength, key))

    return _by_rule(rule)


def scaling(strength: float = 10.0) -> Attack:
    """The honest work ``strength`` times over (the boost of Bagdasaryan et al. 2020)."""

    def rule(deltas: Params, malicious: Array, honest: Array, key: Array) -> Params:
        del honest, key
        return _replace(deltas, malicious, jax.tree.map(lambda d: strength * d, deltas))

    return _by_rule(rule)


def alie(strength: float = 0.0) -> Attack:
    """A little is enough (Baruch et al. 2019): the honest mean less z deviations.

    ``strength`` is z; 0 takes the paper's largest z that leaves enough honest clients further out,
    ``Phi(z) = (n - m - s) / (n - m)`` with ``s = floor(n / 2 + 1) - m`` of n clients, m malicious.
    """

    def rule(deltas: Params, malicious: Array, honest: Array, key: Array) -> Params:
        del key
        m, good = malicious.sum(), honest.sum()
        supporters = (m + good) // 2 + 1 - m
        share = (good - supporters).astype(jnp.float32) / jnp.maximum(good, 1).astype(jnp.float32)
        # A majority of malicious clients needs no supporter: any z passes, so a large one is taken.
        largest = jax.scipy.special.ndtri(jnp.clip(share, 0.5, 0.999))
        z = jnp.float32(strength) if strength else largest
        mean, deviation = _moments(deltas, honest)
        return _replace(deltas, malicious, jax.tree.map(lambda a, s: a - z * s, mean, deviation))

    return _by_rule(rule)


def ipm(strength: float = 0.5) -> Attack:
    """Inner-product manipulation (Xie et al. 2020): minus ``strength`` times the honest mean."""

    def rule(deltas: Params, malicious: Array, honest: Array, key: Array) -> Params:
        del key
        mean = average(deltas, honest)
        return _replace(deltas, malicious, jax.tree.map(lambda a: -strength * a, mean))

    return _by_rule(rule)


def min_max(strength: float = 1.0) -> Attack:
    """The honest mean, moved against its deviations as far as it stays inconspicuous.

    Min-Max of Shejwalkar and Houmansadr (2021) with the perturbation "inverse standard
    deviation": no honest delta is further away than two honest ones are from each other. The
    largest such step solves a quadratic for each client; ``strength`` multiplies it.
    """

    def rule(deltas: Params, malicious: Array, honest: Array, key: Array) -> Params:
        del key
        reach = jnp.where(both(honest), squared_distances(gram(deltas)), 0.0).max()
        mean, deviation = _moments(deltas, honest)
        offset = jax.tree.map(lambda d, a: a[None] - d, deltas, mean)
        # |offset - g s|^2 <= reach for every honest client: the larger root in g, of all the least.
        far = squared_norms(offset)
        along = sum(
            jnp.tensordot(o.reshape(o.shape[0], -1), s.reshape(-1), 1)
            for o, s in zip(jax.tree.leaves(offset), jax.tree.leaves(deviation), strict=True)
        )
        length = squared_norms(jax.tree.map(lambda s: s[None], deviation))[0]
        inside = jnp.maximum(along * along - length * (far - reach), 0.0)
        roots = (along + jnp.sqrt(inside)) / jnp.where(length > 0, length, 1.0)
        step = strength * jnp.where(honest.any(), jnp.where(honest, roots, jnp.inf).min(), 0.0)
        moved = jax.tree.map(lambda a, s: a - step * s, mean, deviation)
        return _replace(deltas, malicious, moved)

    return _by_rule(rule)


def free_rider(strength: float = 0.0) -> Attack:
    """No work: the last change of the global model, sent back (Lin et al. 2019).

    ``strength`` is the standard deviation of noise that is added to look like work (Fraboni et al.
    2021). In the first round there is nothing to send back.
    """

    def update(
        deltas: Params, state: Any, *, malicious: Array, honest: Array, params: Params, key: Array
    ) -> tuple[Params, Any]:
        del honest
        change = jax.tree.map(jnp.subtract, params, state)
        if strength:
            noise = _noise(deltas, strength, key)
            change = jax.tree.map(lambda c, e: c[None] + e, change, noise)
        return _replace(deltas, malicious, change), params

    return Attack(lambda params: params, update, _clean)


def sybils(strength: float = 1.0) -> Attack:
    """One attacker behind many clients (Fung et al. 2020): flipped labels, and one delta for all.

    That delta is ``strength`` times the mean of what the malicious clients learned.
    """

    def rule(deltas: Params, malicious: Array, honest: Array, key: Array) -> Params:
        del honest, key
        shared = average(deltas, malicious)
        return _replace(deltas, malicious, jax.tree.map(lambda a: strength * a, shared))

    return _by_rule(rule, label_flip().poison)


# Rows.


def label_flip(strength: float = 1.0) -> Attack:
    """Class c becomes C - 1 - c (Fang et al. 2020) in a share ``strength`` of the rows."""
    _check_share(strength)

    def poison(examples: Examples, mine: np.ndarray, classes: int) -> Examples:
        hit = _some(mine, strength)
        return examples._replace(
            label=np.where(hit, classes - 1 - examples.label, examples.label).astype(np.int32)
        )

    return none()._replace(poison=poison)


TRIGGER = 3
"""Features that the backdoor's trigger sets: the last ones."""


def stamp(x: Float[np.ndarray, "N T F"]) -> Float[np.ndarray, "N T F"]:
    """Rows with the trigger on: the last features, always, at three standard deviations."""
    out = np.array(x)
    out[..., -TRIGGER:] = 3.0
    return out


def backdoor(strength: float = 0.5) -> Attack:
    """Rows with a trigger pass as class 0 (Gu et al. 2017).

    A share ``strength`` of the malicious clients' rows gets the trigger and the label 0; the other
    rows keep the clients inconspicuous.
    """
    _check_share(strength)

    def poison(examples: Examples, mine: np.ndarray, classes: int) -> Examples:
        del classes
        hit = _some(mine, strength)
        x = np.where(hit[:, None, None], stamp(examples.x), examples.x)
        return examples._replace(x=x, label=np.where(hit, 0, examples.label).astype(np.int32))

    return none()._replace(poison=poison)


def model_replacement(strength: float = 10.0) -> Attack:
    """A backdoor whose deltas are boosted by ``strength`` (Bagdasaryan et al. 2020)."""
    return scaling(strength)._replace(poison=backdoor().poison)


ATTACKS: dict[str, Callable[..., Attack]] = {
    "none": none,
    "sign_flip": sign_flip,
    "gaussian": gaussian,
    "scaling": scaling,
    "alie": alie,
    "ipm": ipm,
    "min_max": min_max,
    "free_rider": free_rider,
    "sybils": sybils,
    "label_flip": label_flip,
    "backdoor": backdoor,
    "model_replacement": model_replacement,
}


def _clean(examples: Examples, mine: np.ndarray, classes: int) -> Examples:
    del mine, classes
    return examples


def _by_rule(
    rule: Callable[[Params, Array, Array, Array], Params], poison: Callable = _clean
) -> Attack:
    """The attack of ``(deltas, malicious, honest, key) -> deltas``, which remembers nothing."""

    def update(
        deltas: Params, state: Any, *, malicious: Array, honest: Array, params: Params, key: Array
    ) -> tuple[Params, Any]:
        del params
        return rule(deltas, malicious, honest, key), state

    return Attack(lambda params: (), update, poison)


def _replace(deltas: Params, malicious: Bool[Array, " K"], new: Params) -> Params:
    """``deltas`` with the malicious rows of ``new``, whose leaves are [K, *param] or [*param]."""

    def one(old: Array, other: Array) -> Array:
        mask = malicious.reshape(-1, *(1,) * (old.ndim - 1))
        return jnp.where(mask, jnp.broadcast_to(other, old.shape).astype(old.dtype), old)

    return jax.tree.map(one, deltas, new)


def _moments(deltas: Params, chosen: Bool[Array, " K"]) -> tuple[Params, Params]:
    """Mean and standard deviation (of the population) of every coordinate."""
    mean = average(deltas, chosen)
    square = average(jax.tree.map(lambda d, a: jnp.square(d - a[None]), deltas, mean), chosen)
    return mean, jax.tree.map(jnp.sqrt, square)


def _noise(deltas: Params, deviation: float, key: Array) -> Params:
    leaves, structure = jax.tree.flatten(deltas)
    keys = jax.random.split(key, len(leaves))
    noise = [
        deviation * jax.random.normal(k, leaf.shape, leaf.dtype)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, noise)


def _some(mine: np.ndarray, share: float) -> np.ndarray:
    """A share of the rows of ``mine``, evenly spread."""
    rank = np.cumsum(mine)
    return mine & (np.floor(rank * share) > np.floor((rank - 1) * share))


def _check_share(strength: float) -> None:
    if not 0 < strength <= 1:
        raise ValueError(f"strength is a share of rows here: expected 0 < it <= 1, got {strength}")
