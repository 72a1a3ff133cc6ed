"""Membership inference: can one tell from a model which rows it was trained on? NumPy; host.

Each of M models is trained on a random half of every client's rows. Attacks score every row for
every model, a higher score meaning "was in"; half of the rows were, so 0.5 is a coin.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import scipy.special
from jax_privacy.auditing import CanaryScoreAuditor
from jaxtyping import Bool, Float, Int

from qoejax.fed.evaluate import make_evaluator
from qoejax.run import build, privacy
from qoejax.run.errors import RunError
from qoejax.run.progress import progress


class Shadows(NamedTuple):
    """M models' confidence in the true label of N rows, and which rows each was trained on."""

    confidence: Float[np.ndarray, "M N"]
    member: Bool[np.ndarray, "M N"]
    right: Bool[np.ndarray, "M N"]
    epsilon: float | None


def halves(count: Int[np.ndarray, " P"], models: int, seed: int) -> Bool[np.ndarray, "M N"]:
    """Members of ``models`` (even) training sets: half of every client's rows, rounded down.

    Models come in pairs that share no row, so each row is in half of the models (the odd row of a
    client in fewer).
    """
    rng = np.random.default_rng([seed, 3])
    member = np.zeros((models, int(count.sum())), bool)
    for start, n in zip(np.cumsum(count) - count, count, strict=True):
        for pair in range(0, models, 2):
            order = start + rng.permutation(n)
            member[pair, order[: n // 2]] = True
            member[pair + 1, order[n // 2 : 2 * (n // 2)]] = True
    return member


def confidence(
    logits: Float[np.ndarray, "N C"], label: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Log-odds of the true label, log p - log(1 - p): near Gaussian (Carlini et al. 2022, IV.C)."""
    rows = np.arange(len(label))
    others = np.asarray(logits, np.float64).copy()
    own = others[rows, label]
    others[rows, label] = -np.inf
    return own - scipy.special.logsumexp(others, axis=1)


def lira(
    confidence: Float[np.ndarray, "M N"], member: Bool[np.ndarray, "M N"], target: int
) -> Float[np.ndarray, " N"]:
    """Log likelihood ratio of "in" over "out" for the target, from the other models.

    Carlini et al. 2022, algorithm 1, with few models: each row has its own two means, all rows
    share two variances. Not a number where no other model had the row in, or none had it out.
    """
    other = np.arange(len(member)) != target
    ratio = np.zeros(member.shape[1])
    for sign, chosen in ((1, member[other]), (-1, ~member[other])):
        seen = chosen.sum(0)
        values = np.where(chosen, confidence[other], 0.0)
        mean = np.divide(values.sum(0), seen, out=np.full(len(seen), np.nan), where=seen > 0)
        squares = np.where(chosen, (confidence[other] - np.nan_to_num(mean)) ** 2, 0.0).sum()
        variance = squares / max(1, int((seen - 1).clip(0).sum()))
        ratio -= sign * ((confidence[target] - mean) ** 2 / variance + np.log(variance)) / 2
    return ratio


def judge(shadows: Shadows) -> dict[str, Any]:
    """Area under the ROC curve and hit rate at 1 % false alarms of two attacks, over all targets.

    ``threshold`` looks at the target's confidence alone (Yeom et al. 2018); ``lira`` at that of
    the other models too. The means over targets, and the standard error of the area's.
    """
    out: dict[str, Any] = {}
    for name in ("threshold", "lira"):
        areas, hits = [], []
        for target, member in enumerate(shadows.member):
            score = shadows.confidence[target]
            if name == "lira":
                score = lira(shadows.confidence, shadows.member, target)
            known = np.isfinite(score)
            auditor = CanaryScoreAuditor(score[known & member], score[known & ~member])
            areas.append(float(auditor.attack_auroc()))
            hits.append(float(auditor.tpr_at_given_fpr(0.01)))
        out[name] = {
            "auc": float(np.mean(areas)),
            "auc_standard_error": float(np.std(areas, ddof=1) / len(areas) ** 0.5),
            "tpr_at_1_percent_fpr": float(np.mean(hits)),
        }
    out["accuracy_in"] = float(shadows.right[shadows.member].mean())
    out["accuracy_out"] = float(shadows.right[~shadows.member].mean())
    return out


def train_shadows(config: ml_collections.ConfigDict, data: build.Data, models: int) -> Shadows:
    """Trains ``models`` models of a config on halves of its training rows; compiles once.

    Raises:
      RunError: fewer than 4 models or an odd number, a client of one row, a budget too small.
    """
    if models < 4 or models % 2:
        raise RunError(f"--models is {models}: expected an even number, 4 or more")
    population = build.population(config, data)
    if population.count.min() < 2:
        raise RunError(
            f"client {int(population.count.argmin())} has one row: an audit halves every client's "
            "rows, expected at least 2"
        )
    rows, count = population.examples, population.count // 2
    member = halves(population.count, models, config.seed)
    counts = np.bincount(data.train.label, minlength=len(data.spec.label_names))
    objective = build.objective(config, data.spec, counts)
    engine = build.make_engine(config, objective.loss_fn, np.cumsum(count) - count, count)
    predict = make_evaluator(objective.predict, config.evaluation.batch)
    key = jax.random.key(config.seed)
    ledger = privacy.ledger(config, engine, jax.random.fold_in(key, 1), count)
    scores, right = [], []
    for m, _ in enumerate(progress([1] * models, models, 0, "model")):
        own = jax.random.fold_in(key, 2 + m)
        staged = engine.place(jax.tree.map(lambda leaf, m=m: jnp.asarray(leaf[member[m]]), rows))
        state = engine.init(objective.init(jax.random.fold_in(own, 0), staged.x[:1]))
        # The cohorts that were priced: one key for all models draws them.
        state, _ = engine.block(state, staged, jax.random.fold_in(key, 1), ledger.rounds)
        logits = np.asarray(predict(state.params, rows.x)["logits"])
        scores.append(confidence(logits, rows.label))
        right.append(logits.argmax(1) == rows.label)
    spent = None if ledger.epsilon is None else ledger.epsilon(ledger.rounds)
    return Shadows(np.stack(scores), member, np.stack(right), spent)
