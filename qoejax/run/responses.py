"""Learning who attacks and what actions do, from scenes whose actions were drawn at random.

Randomised actions make the data causal: what a user's MOS is under an action is not mixed up with
why somebody took it. Nets see what a gateway sees (``Seen``), never a hidden quantity.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from qoejax.fed.promotion import lenient_optimizer
from qoejax.nets.sources import Described, SourceNet
from qoejax.qoe.policies import View
from qoejax.simulate import acts, mixes, sources
from qoejax.simulate.observe import FEATURES

CLASSES = len(mixes.LABELS)

NETS: dict[str, SourceNet] = {
    "joint": SourceNet(48, CLASSES, 2, acts.ADMITTED),
    # Together as many parameters as the joint net, within 2 %.
    "detector": SourceNet(35, CLASSES, 0, acts.ADMITTED),
    "responder": SourceNet(35, 0, 1, acts.ADMITTED),
}

_WHOSE = {"joint": ("joint", "joint"), "separate": ("detector", "responder")}

RECENT_S = 2
_BYTES = next(i for i, f in enumerate(FEATURES) if f.name == "Tot sum")


class Seen(NamedTuple):
    """What policies and nets know of a scene of N sources.

    ``x``: logs of every feature's mean, recent mean and spread, the service, and of the scene the
    link's speed, the usual prevalence and the blur of the sensor. ``use``: measured rate of each
    source as a share of the link.
    """

    x: Float[Array, "N F"]
    use: Float[Array, " N"]


class Sample(NamedTuple):
    """Scenes with R random choices of actions each, and what came of them."""

    seen: Seen
    label: Int[Array, " N"]
    actions: Int[Array, "R N"]
    mos: Float[Array, "R N"]


class Fit(NamedTuple):
    """A trained net: its parameters, and how features are standardised."""

    params: Any
    mean: Float[Array, " F"]
    std: Float[Array, " F"]


def see(scene: sources.Scene, prevalence: Float[Array, ""], blur: Float[Array, ""]) -> Seen:
    """What is known of a scene before actions are taken."""
    seconds = jnp.log1p(scene.x)
    use = scene.x[:, -RECENT_S:, _BYTES].mean(1) / scene.link
    service = jax.nn.one_hot(scene.service, len(sources.SERVICES))
    whole = jnp.stack([jnp.log(scene.link), jax.scipy.special.logit(prevalence), blur])
    columns = [
        seconds.mean(1), seconds[:, -RECENT_S:].mean(1), seconds.std(1), service,
        jnp.log(use + 1e-4)[:, None], jnp.broadcast_to(whole[None], (len(use), 3)),
    ]  # fmt: skip
    return Seen(jnp.concatenate(columns, axis=1), use)


def sample(
    key: Key[Array, ""], prevalence: Float[Array, ""], blur: Float[Array, ""], draws: int
) -> Sample:
    """A scene, acted on at random ``draws`` times, from hardly anything to nearly everything."""
    scene_key, action_key = jax.random.split(key)
    scene = sources.scene(scene_key, prevalence, blur)
    unit_key, share_key = jax.random.split(action_key)
    unit = jax.random.uniform(unit_key, (draws, sources.SOURCES))
    share = jax.random.uniform(share_key, (draws, 2)) * jnp.array([[0.6, 0.4]])
    block, limit = share[:, :1], share[:, 1:]
    actions = jnp.where(unit < block, 2, jnp.where(unit < block + limit, 1, 0))
    mos = jax.vmap(lambda a: acts.act(scene, a).mos)(actions)
    return Sample(see(scene, prevalence, blur), scene.label, actions, mos)


def samples(
    seed: int, count: int, prevalences: Sequence[float], blurs: Sequence[float], chunk: int = 100
) -> Sample:
    """``count`` samples [E], rounded up to chunks; prevalence and blur of each are drawn."""
    rng = np.random.default_rng(seed)
    base, made = jax.random.key(seed), []
    for part in range(-(-count // chunk)):
        keys = jax.random.split(jax.random.fold_in(base, part), chunk)
        prevalence, blur = (
            jnp.asarray(rng.choice(np.asarray(values, np.float32), chunk))
            for values in (prevalences, blurs)
        )
        made.append(jax.device_get(_several(keys, prevalence, blur, 4)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *made)


_several = jax.jit(jax.vmap(sample, (0, 0, 0, None)), static_argnums=3)


def fit(name: str, data: Sample, key: Key[Array, ""], steps: int, batch: int = 64) -> Fit:
    """Trains one of ``NETS`` on samples [E] by AdamW with a cosine schedule; see ``loss``."""
    net = NETS[name]
    flat = data.seen.x.reshape(-1, data.seen.x.shape[-1])
    mean, std = flat.mean(0), flat.std(0) + 1e-3
    x = (data.seen.x - mean) / std
    data = jax.tree.map(jnp.asarray, data._replace(seen=data.seen._replace(x=x)))
    init_key, run_key = jax.random.split(key)
    first = jax.tree.map(lambda leaf: leaf[0], data)
    params = net.init(init_key, first.seen.x, first.seen.use, first.actions[0])
    params = _train(net, params, data, run_key, steps, batch)
    return Fit(params, jnp.asarray(mean), jnp.asarray(std))


def _apply(net: SourceNet, params: Any, *args: Any, method: str) -> Any:
    return net.apply(params, *args, method=method)


def loss(net: SourceNet, params: Any, scene: Sample) -> Float[Array, ""]:
    """Loss of one scene whose features are standardised.

    Cross-entropy of the classes, where the net has them, plus the squared error of the MOS of
    sources that are not blocked, where it has one: of the kind that each source is of.
    """
    described = _apply(net, params, *scene.seen, method="describe")
    total = jnp.zeros(())
    if net.classes:
        entropy = optax.softmax_cross_entropy_with_integer_labels(described.logits, scene.label)
        total += entropy.mean()
    if net.kinds:
        mos = jax.vmap(lambda a: _apply(net, params, described, a, method="respond"))(scene.actions)
        kind = jnp.broadcast_to(jnp.minimum(scene.label, net.kinds - 1), scene.actions.shape)
        own = jnp.take_along_axis(mos, kind[..., None], axis=2)[..., 0]
        total += ((own - scene.mos) ** 2).mean(where=scene.actions != 2)
    return total


@functools.partial(jax.jit, static_argnames=("net", "steps", "batch"))
def _train(net: SourceNet, params: Any, data: Sample, key: Array, steps: int, batch: int) -> Any:
    schedule = optax.cosine_decay_schedule(4e-3, steps)
    optimizer = lenient_optimizer(optax.adamw(schedule, weight_decay=1e-4))

    def step(state: tuple[Any, Any], i: Array) -> tuple[tuple[Any, Any], None]:
        params, opt_state = state
        rows = jax.random.randint(jax.random.fold_in(key, i), (batch,), 0, len(data.label))
        chosen = jax.tree.map(lambda leaf: leaf[rows], data)
        each = jax.vmap(functools.partial(loss, net), (None, 0))
        grads = jax.grad(lambda p: each(p, chosen).mean())(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params


def view(fits: dict[str, Fit], seen: Seen, believes: str) -> View:
    """What a policy believes of a scene.

    Args:
        fits: of each of ``NETS``.
        seen: of the scene.
        believes: "joint": p(k|x) and MOS_benign(x, a) of the joint net. "separate": p(k|x) of the
            detector and MOS(x, a) of the responder, which ignores classes.
    """

    def described(name: str) -> Described:
        x = (seen.x - fits[name].mean[None]) / fits[name].std[None]
        return _apply(NETS[name], fits[name].params, x, seen.use, method="describe")

    detects, responds = _WHOSE[believes]
    net, params, response = NETS[responds], fits[responds].params, described(responds)

    def respond(actions: Int[Array, " N"]) -> Float[Array, " N"]:
        # The first kind is that of a benign source, where the net tells kinds.
        return _apply(net, params, response, actions, method="respond")[:, 0]

    return View(jax.nn.softmax(described(detects).logits), respond)
