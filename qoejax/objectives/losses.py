"""Per-example losses of the two tasks, and their sum as one objective. JAX.

Everything is first a value per example and only then a weighted mean, so the loss of a batch is
``sums["loss_sum"] / sums["count"]``: micro-batches, clients and padded batches add up exactly.
"""

import functools
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from qoejax.qoe import scales
from qoejax.types import Examples, Params, Sums

WEIGHTINGS = ("fixed", "uncertainty")


@runtime_checkable
class NetLike(Protocol):
    """What a net must have here: ``init(key, x)`` and ``apply(params, x, *, key=None)``."""

    init: Callable[..., Params]
    apply: Callable[..., dict[str, Array]]


class Objective(NamedTuple):
    """A net and what it is trained for, as three pure functions.

    ``init(key, x[B,T,F]) -> params``: ``{"net": ...}``, and with uncertainty weighting also
    ``"task": {"class_log_var": f32[], "mos_log_var": f32[]}``, which are trained, averaged and
    sent like any other parameter.
    ``loss_fn(params, batch, key) -> (loss, sums)``: ``make_loss`` defines the loss; without a key
    there is no dropout. The sums are those of ``weight`` times: the loss ("loss_sum") over
    examples ("count"); the class loss ("class_loss_sum") and right answers ("correct") over
    labelled ones ("class_count"); the MOS loss ("mos_loss_sum"), squared error of the mean
    ("mos_se") and absolute error ("mos_ae") over ratings ("mos_count"). The class loss is after
    ``class_weight``; both are before the weights of tasks.
    ``predict(params, x[B,T,F]) -> {"logits": f32[B,C], "mos": f32[B,Q,M]}``: no dropout.
    """

    init: Callable[[Array, Float[Array, "B T F"]], Params]
    loss_fn: Callable[[Params, Examples, Array | None], tuple[Float[Array, ""], Sums]]
    predict: Callable[[Params, Float[Array, "B T F"]], dict[str, Array]]


# Class losses: (logits [B,C], label [B], ...) -> [B]; a label must be in 0..C-1.


def cross_entropy(
    logits: Float[Array, "B C"],
    label: Int[Array, " B"],
    *,
    smoothing: float = 0.0,
    gamma: float = 0.0,
) -> Float[Array, " B"]:
    """Cross-entropy with label smoothing (Szegedy et al. 2016); ``gamma`` must be 0."""
    if gamma:
        raise ValueError(f"cross_entropy has no focal_gamma: expected 0, got {gamma}")
    return -jnp.sum(_soft_labels(logits, label, smoothing) * jax.nn.log_softmax(logits), axis=-1)


def focal(
    logits: Float[Array, "B C"],
    label: Int[Array, " B"],
    *,
    smoothing: float = 0.0,
    gamma: float = 2.0,
) -> Float[Array, " B"]:
    """Focal loss (Lin et al. 2017): ``-sum_c t_c (1 - p_c)^gamma log p_c``.

    ``t`` is the (smoothed) one-hot label. With ``gamma`` 0 it is cross-entropy.
    """
    if gamma < 0:
        raise ValueError(f"focal_gamma: expected 0 or more, got {gamma}")
    log_p = jax.nn.log_softmax(logits)
    # 1 - p as a sum of the other probabilities would be exact; the floor keeps the power's
    # gradient finite where p rounds to 1.
    easy = jnp.maximum(-jnp.expm1(log_p), 1e-7) ** gamma
    return -jnp.sum(_soft_labels(logits, label, smoothing) * easy * log_p, axis=-1)


def _soft_labels(logits: Array, label: Array, smoothing: float) -> Array:
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"label_smoothing: expected 0 <= value < 1, got {smoothing}")
    classes = logits.shape[-1]
    hard = jax.nn.one_hot(label, classes, dtype=logits.dtype)
    return hard * (1 - smoothing) + smoothing / classes


CLASS_LOSSES: dict[str, Callable[..., Float[Array, " B"]]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
}
"""By name: ``(logits [B,C], label [B], *, smoothing, gamma) -> [B]``."""


# MOS losses: (bin logits [...,M], mos [...]) -> [...]


def ranked_probability_score(
    logits: Float[Array, "*batch M"], mos: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Ranked probability score, in MOS points (Epstein 1969).

    Squared difference of the cumulative bin probabilities and those of the two-hot target, times
    the distance of two bins: the CRPS of Gneiting and Raftery (2007) on the bins' grid. A
    forecast with all its mass in one bin scores the absolute error when the target is a bin's
    centre, and zero is reached for every target in [1, 5].
    """
    bins = logits.shape[-1]
    step = (scales.HIGH - scales.LOW) / (bins - 1)
    gap = jnp.cumsum(jax.nn.softmax(logits) - scales.two_hot(mos, bins), axis=-1)
    return jnp.sum(jnp.square(gap[..., :-1]), axis=-1) * step


def two_hot_cross_entropy(
    logits: Float[Array, "*batch M"], mos: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Cross-entropy to the two bins next to the target, weighted so that their mean is it."""
    return -jnp.sum(scales.two_hot(mos, logits.shape[-1]) * jax.nn.log_softmax(logits), axis=-1)


MOS_LOSSES: dict[str, Callable[..., Array]] = {
    "rps": ranked_probability_score,
    "two_hot": two_hot_cross_entropy,
}
"""By name: ``(logits [...,M], mos [...]) -> [...]``."""


# Class weights, from counts of the training rows: host, NumPy.


def _effective(counts: np.ndarray) -> np.ndarray:
    beta = 1 - 1 / max(float(counts.sum()), 1.0)
    return (1 - beta) / (1 - beta**counts)


SCHEMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda counts: np.ones_like(counts),
    "balanced": lambda counts: 1 / counts,
    "sqrt": lambda counts: 1 / np.sqrt(counts),
    "effective": _effective,
}
"""By name: weights of the classes that occur, up to a factor."""


def class_weights(counts: Num[np.ndarray, " C"], scheme: str) -> Float[np.ndarray, " C"]:
    """Weight of each class in the loss.

    Args:
        counts: Training rows of each class.
        scheme: "none"; "balanced", inverse to the count; "sqrt", inverse to its root;
            "effective", inverse to the effective number of rows (Cui et al. 2019, with
            ``beta = 1 - 1/N``).

    Returns:
        float32 weights whose mean over the training rows is 1, so that no scheme changes the
        size of the loss; a class without rows gets 1, and plays no part in the mean.

    Raises:
        ValueError: An unknown scheme, a negative count, or no row at all.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"class weight {scheme!r}: expected one of {', '.join(SCHEMES)}")
    counts = np.asarray(counts, np.float64)
    if (counts < 0).any() or counts.sum() <= 0:
        raise ValueError(f"class counts: expected at least one row, got {counts.tolist()}")
    seen = counts > 0
    weights = np.ones_like(counts)
    weights[seen] = SCHEMES[scheme](counts[seen])
    weights[seen] *= counts.sum() / np.sum(weights[seen] * counts[seen])
    return weights.astype(np.float32)


class Terms(NamedTuple):
    """Both tasks' losses, before weights of tasks and examples; 0 where there is no target."""

    on_class: Float[Array, " B"]
    labelled: Float[Array, " B"]
    on_mos: Float[Array, "B Q"]
    rated: Float[Array, "B Q"]


def _fitting(out: dict[str, Array], batch: Examples, classes: int) -> dict[str, Array]:
    """The outputs, without MOS where the data has no service at all; or a ValueError."""
    if out["logits"].shape[-1] != classes:
        raise ValueError(f"the net has {out['logits'].shape[-1]} classes, class_weight {classes}")
    services = batch.mos.shape[1]
    if services not in (0, out["mos"].shape[1]):
        raise ValueError(f"the net has {out['mos'].shape[1]} services, the data {services}")
    return {**out, "mos": out["mos"][:, :services]}


def _terms(
    out: dict[str, Array],
    batch: Examples,
    class_weight: np.ndarray,
    loss_of_class: Callable[[Array, Array], Array],
    loss_of_mos: Callable[[Array, Array], Array],
) -> Terms:
    labelled = (batch.label >= 0).astype(jnp.float32)
    label = jnp.maximum(batch.label, 0)
    on_class = loss_of_class(out["logits"], label) * jnp.asarray(class_weight)[label]
    rated = batch.mos_mask.astype(jnp.float32)
    mos = jnp.where(batch.mos_mask, batch.mos, scales.LOW)  # under the mask may be anything
    return Terms(on_class * labelled, labelled, loss_of_mos(out["mos"], mos) * rated, rated)


def _task(loss: Array, present: Array, log_var: Array | None) -> Array:
    """An example's term of one task; without the task, 0 whatever the log-variance."""
    if log_var is None:
        return loss * present
    return (jnp.exp(-log_var) * loss + log_var / 2) * present


def _total(terms: Terms, task: Params | None, mos_weight: float) -> tuple[Array, Array]:
    """Loss of each example, and whether it has one."""
    ratings = terms.rated.sum(-1)
    any_rating = (ratings > 0).astype(jnp.float32)
    on_mos = terms.on_mos.sum(-1) / jnp.maximum(ratings, 1.0)
    task = task or {}
    total = _task(terms.on_class, terms.labelled, task.get("class_log_var"))
    total = total + mos_weight * _task(on_mos, any_rating, task.get("mos_log_var"))
    valid = jnp.maximum(terms.labelled, any_rating) if mos_weight else terms.labelled
    return total, valid


def _sums(batch: Examples, out: dict[str, Array], terms: Terms) -> Sums:
    """Metric numerators and denominators of the two tasks."""
    right = (jnp.argmax(out["logits"], -1) == batch.label).astype(jnp.float32)
    by_rating = terms.rated * batch.weight[:, None]
    error = jnp.where(batch.mos_mask, scales.mean(out["mos"]) - batch.mos, 0.0)
    return {
        "class_loss_sum": jnp.sum(batch.weight * terms.on_class),
        "correct": jnp.sum(batch.weight * terms.labelled * right),
        "class_count": jnp.sum(batch.weight * terms.labelled),
        "mos_loss_sum": jnp.sum(batch.weight[:, None] * terms.on_mos),
        "mos_se": jnp.sum(by_rating * jnp.square(error)),
        "mos_ae": jnp.sum(by_rating * jnp.abs(error)),
        "mos_count": jnp.sum(by_rating),
    }


def _check(mos_weight: float, **choices: tuple[str, Collection[str]]) -> None:
    for name, (value, options) in choices.items():
        if value not in options:
            raise ValueError(f"{name} {value!r}: expected one of {', '.join(options)}")
    if mos_weight < 0:
        raise ValueError(f"mos_weight: expected 0 or more, got {mos_weight}")


def make_loss(
    net: NetLike,
    *,
    class_weight: Float[np.ndarray | Array, " C"],
    class_loss: str = "cross_entropy",
    mos_loss: str = "rps",
    mos_weight: float = 1.0,
    weighting: str = "fixed",
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Objective:
    """The two-task objective of a net.

    The loss of an example is ``class_weight[label] * class_loss + mos_weight * mean of mos_loss
    over its rated services``, either term absent where there is no label (-1) or no rating. With
    ``weighting="uncertainty"`` a term ``l`` becomes ``exp(-s) l + s / 2``, ``s`` a learned
    log-variance per task (Kendall et al. 2018), before ``mos_weight``. The loss of a batch is the
    mean over examples that have a term, weighted by ``weight``; with none, it and its gradient
    are 0. Padding (weight 0) must be finite numbers.

    Args:
        net: See ``qoejax.nets.net.Net``; its parameters live under "net".
        class_weight: From ``class_weights``.
        class_loss: A name of ``CLASS_LOSSES``.
        mos_loss: A name of ``MOS_LOSSES``.
        mos_weight: Of the MOS term; with 0 only labelled examples count.
        weighting: "fixed" or "uncertainty".
        label_smoothing: Share of a label's mass spread over all classes.
        focal_gamma: Exponent of the focal loss.

    Raises:
        ValueError: A bad name or value; by ``loss_fn``, a net with other classes or services.
    """
    _check(
        mos_weight, class_loss=(class_loss, CLASS_LOSSES), mos_loss=(mos_loss, MOS_LOSSES),
        weighting=(weighting, WEIGHTINGS),
    )  # fmt: skip
    weights = np.asarray(class_weight, np.float32)
    loss_of_class = functools.partial(
        CLASS_LOSSES[class_loss], smoothing=label_smoothing, gamma=focal_gamma
    )
    loss_of_class(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))  # refuses bad values now

    def init(key: Array, x: Float[Array, "B T F"]) -> Params:
        params = {"net": net.init(key, x)}
        if weighting == "uncertainty":
            params["task"] = {"class_log_var": jnp.zeros(()), "mos_log_var": jnp.zeros(())}
        return params

    def loss_fn(params: Params, batch: Examples, key: Array | None) -> tuple[Array, Sums]:
        out = _fitting(net.apply(params["net"], batch.x, key=key), batch, len(weights))
        parts = _terms(out, batch, weights, loss_of_class, MOS_LOSSES[mos_loss])
        total, valid = _total(parts, params.get("task"), mos_weight)
        count = jnp.sum(batch.weight * valid)
        loss_sum = jnp.sum(batch.weight * total)
        sums = {"loss_sum": loss_sum, "count": count, **_sums(batch, out, parts)}
        return loss_sum / jnp.where(count > 0, count, 1.0), sums

    return Objective(init, loss_fn, lambda params, x: net.apply(params["net"], x, key=None))
