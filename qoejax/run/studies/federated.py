"""Federated against centralised and local-only training, by how alike the clients are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax.data.builders.simulated_iot.simulated_iot_dataset_builder import SETTINGS
from qoejax.fed.evaluate import make_evaluator
from qoejax.run import build, evaluate, outputs, plots, train
from qoejax.run.baselines import interval
from qoejax.run.studies import draw, fits
from qoejax.run.studies.fits import SIMULATED
from qoejax.run.study import FAILS, HOLDS, Context, Outcome, once, scaled, side_by_side

SITES = "sites"
PARTITIONS: dict[str, dict[str, Any]] = {
    "Dirichlet 1.0": {"partition": "dirichlet", "alpha": 1.0},
    "Dirichlet 0.3": {"partition": "dirichlet", "alpha": 0.3},
    SITES: {"partition": "natural"},
    "Dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1},
}
"""Less work leaves out the last of these first."""

GAPS = {"Dirichlet 1.0": 0.02, "Dirichlet 0.3": 0.05}
"""Macro-F1 that may be lost to centralised training."""

BETTER = 0.80
CENTRALISED, LOCAL = "centralised", "local_only"
ALGORITHMS: dict[str, dict[str, Any]] = {
    "shared_moments": {},
    "fedavg": {},
    "scaffold": {"optimizer": "sgd", "lr": 0.2, "weight_decay": 0.0},
    "fedper": {},
    "fedbn": {},
}
"""Keys of ``CLIENT`` that differ; less work leaves out the last first."""

ONLY_AT = {
    "scaffold": ("Dirichlet 0.1",),
    "fedper": (SITES,),
    "fedbn": (SITES,),
}
"""Partitions in which these are trained; they have no part in the verdict."""

CLIENT = {
    "optimizer": "adamw", "lr": 0.003, "weight_decay": 0.1, "clip": 1.0,
    "schedule": "warmup_cosine", "batch": 8, "steps": 16,
}  # fmt: skip
"""How clients train. Small batches: with 20 clients a step sees as many rows as in one place."""

MODEL = {
    "net": "qoenet", "width": 32, "depth": 1, "heads": 4, "mlp": 64, "hidden": 64, "shortcut": True,
}  # fmt: skip
CLIENTS, ROUNDS, SEEDS = 20, 100, 1
ALONE = 0.5
"""Part of ``ROUNDS`` after which clients on their own stop: they soon learn few rows by heart."""


class Run(NamedTuple):
    """Macro-F1 on all test rows, and by client on test rows weighted as the client's are."""

    f1: float
    clients: np.ndarray  # [K]


Runs = Mapping[str, Mapping[str, list[Run]]]
"""By partition and algorithm, one of each seed."""


def judge(runs: Runs) -> tuple[str, str]:
    """Holds if one algorithm keeps to the gaps and serves enough clients in every partition."""
    best, text = None, []
    for name in [a for a in ALGORITHMS if all(a in own for own in runs.values())]:
        found = {partition: loss(own, name) for partition, own in runs.items()}
        kept = all(found[p][0] <= limit for p, limit in GAPS.items())
        served = all(share >= BETTER for p, (_, share) in found.items() if p in GAPS or p == SITES)
        score = sum(max(0.0, found[p][0] - limit) for p, limit in GAPS.items())
        line = (
            f"{name}: below centralised by "
            + ", ".join(f"{gap:.3f} at {p}" for p, (gap, _) in found.items())
            + "; better than local-only for "
            + ", ".join(f"{share:.0%} at {p}" for p, (_, share) in found.items())
        )
        text.append((not (kept and served), score, line))
        best = best or (name if kept and served else None)
    return (HOLDS if best else FAILS), min(text)[2]


def loss(own: Mapping[str, list[Run]], name: str) -> tuple[float, float]:
    """Macro-F1 lost to centralised training, and the share of clients better off than alone."""
    mean = {a: float(np.mean([r.f1 for r in own[a]])) for a in (name, CENTRALISED)}
    better = [
        np.mean(r.clients > alone.clients) for r, alone in zip(own[name], own[LOCAL], strict=True)
    ]
    return mean[CENTRALISED] - mean[name], float(np.mean(better))


def _training(context: Context, partition: str) -> list[str]:
    """Ways of training that are compared in a partition."""
    names = list(ALGORITHMS)[: scaled(context.scale, len(ALGORITHMS))]
    kept = [name for name in names if partition in ONLY_AT.get(name, (partition,))]
    return [*kept, LOCAL, CENTRALISED]


def study(context: Context) -> Outcome:
    """See ``claims.CLAIMS``."""
    count = scaled(context.scale, len(PARTITIONS), 2)
    chosen = list(PARTITIONS)[:count]
    seeds = min(SEEDS, context.seeds)
    names = {partition: _training(context, partition) for partition in chosen}
    jobs = [(p, name, seed) for p in chosen for name in names[p] for seed in range(seeds)]
    side_by_side(context, said, list(dict.fromkeys(_job(*job) for job in jobs)))
    runs: dict[str, dict[str, list[Run]]] = {}
    for partition in chosen:
        judged = _judging(context, partition)
        runs[partition] = {
            name: [judged(said(context, *_job(partition, name, seed))) for seed in range(seeds)]
            for name in names[partition]
        }
    rows = []
    for partition, own in runs.items():
        for name, each in own.items():
            row: dict[str, Any] = {
                "clients": partition, "training": name,
                "macro-F1": list(interval([r.f1 for r in each])),
                "mean client": float(np.mean([r.clients.mean() for r in each])),
                "worst client": float(np.mean([r.clients.min() for r in each])),
            }  # fmt: skip
            if name not in (CENTRALISED, LOCAL):
                row["better than alone"] = f"{loss(own, name)[1]:.0%}"
            rows.append(row)
    shown = {f"{r['clients']}: {r['training']}": r["macro-F1"] for r in rows}
    plots.save(draw.bars(shown, "macro-F1 on all test rows"), context.folder / "federated.png")
    return Outcome(*judge(runs), rows, ["federated.png"])


def _job(partition: str, name: str, seed: int) -> tuple[str, str, int]:
    """What is trained; in one place it is the same however rows are shared."""
    return (SITES if name == CENTRALISED else partition, name, seed)


def settings(context: Context, partition: str, algorithm: str) -> ml_collections.ConfigDict:
    """The config of one way of training, of a smaller hybrid, in the clear."""
    c = fits.config(context, SIMULATED)
    if c.model.net == "qoenet":
        c.model = dict(MODEL)
    c.clients.update(count=min(CLIENTS, c.clients.count), **PARTITIONS[partition])
    if algorithm == CENTRALISED:
        c.fed.rounds = scaled(context.scale, c.fed.rounds, 3)
    else:
        part = context.scale * (ALONE if algorithm == LOCAL else 1.0)
        c.fed.update(algorithm=algorithm, rounds=scaled(part, ROUNDS, 3))
        c.client.update({**CLIENT, **ALGORITHMS.get(algorithm, {})})
    c.exchange.mode = "none"
    c.perf.update(client_axis="turn", devices=1)
    c.data.seed = 0  # The same clients for every seed of training.
    return c


def said(context: Context, partition: str, algorithm: str, seed: int) -> list[list[int]]:
    """Classes [N] of the test rows by the model, or by each client's own; kept."""
    c = settings(context, partition, algorithm)
    work = {"federated": algorithm, "partition": partition, "seed": seed,
            "config": build.plain_config(c)}  # fmt: skip

    def compute() -> list[list[int]]:
        c.seed = seed
        build.check(c)
        return [classes.tolist() for classes in trained(c, build.data(c))]

    return once(context.folder, work, compute)


def trained(c: ml_collections.ConfigDict, data: build.Data) -> list[np.ndarray]:
    """Classes [N] of ``data.test`` by the model of a run of ``c``, or by each client's own."""
    population = build.population(c, data)
    counts = np.bincount(data.train.label, minlength=len(data.spec.label_names))
    objective = build.objective(c, data.spec, counts)
    engine = train.engines(c, data, population, objective)[0](None)
    key = jax.random.key(c.seed)
    first = objective.init(jax.random.fold_in(key, 0), jnp.asarray(data.train.x[:1]))
    rows = engine.place(population.examples)
    state, _ = engine.block(engine.init(first), rows, jax.random.fold_in(key, 1), c.fed.rounds)
    params = jax.device_get(engine.models(state) if engine.models else state.params)
    models = evaluate.unstack(params) if engine.models else [params]
    predict, x = make_evaluator(objective.predict, c.evaluation.batch), jnp.asarray(data.test.x)
    each = [outputs.probabilities(jax.device_get(predict(p, x)))[0] for p in models]
    return [probability.argmax(1) for probability in each]


def set_aside(data: build.Data, each: int) -> build.Data:
    """The same simulated rows, one of ``each`` training episodes in the place of the test rows."""
    episode = np.arange(len(data.group)) // SETTINGS.examples()
    aside = episode % each == each - 1
    rest, test = (jax.tree.map(lambda leaf, m=m: leaf[m], data.train) for m in (~aside, aside))
    groups = {"group": data.group[~aside], "test_group": data.group[aside]}
    return data._replace(train=rest, test=test, **groups)


def _judging(context: Context, partition: str) -> Callable[[list[list[int]]], Run]:
    """From what models say of the test rows to their figures, of the clients of a partition."""
    c = settings(context, partition, next(iter(ALGORITHMS)))
    data = build.data(c)
    weight, classes = client_weights(c, data), len(data.spec.label_names)

    def judged(models: list[list[int]]) -> Run:
        return scores([np.array(one) for one in models], data.test.label, weight, classes)

    return judged


def client_weights(config: ml_collections.ConfigDict, data: build.Data) -> np.ndarray:
    """Weights [K,N] of test rows that give each client's own mix: its sites, or its classes."""
    c = build.from_plain(build.plain_config(config))
    c.fed.algorithm = "fedavg"  # Clients are the same whoever trains.
    population = build.population(c, data)
    if c.clients.partition == "natural":
        owner = build.owners(population, data)
        return np.stack([owner == k for k in range(len(population.count))]).astype(np.float64)
    label, classes = data.test.label, len(data.spec.label_names)
    there = np.maximum(np.bincount(label, minlength=classes), 1)
    own = np.stack(
        [np.bincount(data.train.label[part], minlength=classes) for part in population.parts]
    )
    return (own / own.sum(1, keepdims=True) / there)[:, label]


def scores(models: list[np.ndarray], label: np.ndarray, weight: np.ndarray, classes: int) -> Run:
    """Macro-F1 of the models' classes [N] on all rows, and of each client's model on its rows."""

    def f1(predicted: np.ndarray, rows: np.ndarray) -> float:
        cells = np.bincount(label * classes + predicted, weights=rows, minlength=classes**2)
        matrix = cells.reshape(classes, classes)
        there, total = matrix.sum(1) > 0, matrix.sum(0) + matrix.sum(1)
        return float((2 * np.diag(matrix)[there] / total[there]).mean())

    whole = np.ones(len(label))
    own = models if len(models) == len(weight) else models * len(weight)
    return Run(
        float(np.mean([f1(p, whole) for p in models])),
        np.array([f1(p, w) for p, w in zip(own, weight, strict=True)]),
    )
