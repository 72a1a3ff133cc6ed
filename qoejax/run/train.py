"""The host loop: blocks of rounds on the device, files and progress in between."""

import contextlib
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax import trees
from qoejax.fed import participation
from qoejax.fed.engine import Engine
from qoejax.fed.evaluate import make_evaluator
from qoejax.fed.judge import by_experience
from qoejax.run import (
    algorithm,
    build,
    calibrate,
    distributed,
    evaluate,
    exchange,
    files,
    manifest,
    masked,
    network,
    opening,
    participate,
    privacy,
    report,
    rounds,
    sums,
    tune,
    wired,
)
from qoejax.run.checkpoint import Checkpoints
from qoejax.run.choices import call
from qoejax.run.model import Model
from qoejax.run.model import save as save_model
from qoejax.run.progress import progress
from qoejax.run.writer import MetricsWriter, read_rows
from qoejax.types import Examples
from qoejax.wire import codec

LOG = logging.getLogger("qoejax")


class Run(NamedTuple):
    """Everything that a run needs and that does not change from round to round."""

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    data: build.Data
    population: build.Population
    objective: Any
    engine: Engine
    make_engine: Callable[[Mapping[str, Any] | None], Engine]  # of traced rates, for sweeps
    fleet: participate.Fleet | None  # simulated devices
    predict: Any  # compiled once: a run evaluates many times
    examples: Examples  # on the device
    key: jax.Array
    label_counts: np.ndarray
    ledger: privacy.Ledger
    tuned: dict[str, Any] | None  # how ``config.perf`` was chosen, if by measurement
    group: distributed.Group = distributed.ALONE  # the processes that share the run


def prepare(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    group: distributed.Group = distributed.ALONE,
    tuned: dict[str, Any] | None = None,
    retune: bool = False,
) -> Run:
    """Data, model and engine of a config; compiles nothing yet unless it has to measure.

    ``tuned`` is what the run chose when it began, ``retune`` says not to ask the cache.
    """
    data = build.data(config)
    population = build.population(config, data)
    counts = np.bincount(data.train.label, minlength=len(data.spec.label_names))
    objective = build.objective(config, data.spec, counts)
    config, tuned = tune.resolve(config, _trial(config, data, population, objective), tuned, retune)
    make_engine, fleet, _ = engines(config, data, population, objective)
    engine = make_engine(None)
    calibrate.check_engine(config, engine)
    predict = make_evaluator(objective.predict, config.evaluation.batch)
    staged = engine.place(population.examples)
    key = jax.random.key(config.seed)
    grid = None
    if config.privacy.mechanism == "skellam":
        params = jax.eval_shape(objective.init, key, jnp.asarray(population.examples.x[:1]))
        sent = jax.tree.leaves(jax.eval_shape(engine.message, params))
        grid = exchange.grid(config, sum(leaf.size for leaf in sent), len(population.count))
    ledger = privacy.ledger(config, engine, jax.random.fold_in(key, 1), population.count, grid)
    return Run(
        config, workdir, data, population, objective, engine, make_engine, fleet, predict, staged,
        key, counts, ledger, tuned, group,
    )  # fmt: skip


def _trial(
    config: ml_collections.ConfigDict,
    data: build.Data,
    population: build.Population,
    objective: Any,
) -> Callable[[], tune.Trial]:
    """Short rounds of this run, for measurements; made when they are wanted."""

    def short(config: ml_collections.ConfigDict) -> tuple[Engine, float]:
        make_engine, _, share = engines(config, data, population, objective, tune.STEPS)
        return make_engine(None), share

    def make() -> tune.Trial:
        steps = participate.local_steps(config, population.count)
        return tune.Trial(
            engine=short,
            params=objective.init(jax.random.key(0), jnp.asarray(population.examples.x[:1])),
            examples=population.examples,
            cohort=config.fed.cohort or len(population.count),
            facts={"clients": len(steps), "steps": (steps.min(), steps.mean(), steps.max())},
        )

    return make


def engines(
    config: ml_collections.ConfigDict,
    data: build.Data,
    population: build.Population,
    objective: Any,
    short: int | None = None,
) -> tuple[Callable[[Mapping[str, Any] | None], Engine], participate.Fleet | None, float]:
    """The engine of given rates, once all that shapes can rule out is ruled out; its devices.

    With ``short`` clients do a share of their work, about so many steps; the share comes last.
    """
    x = jax.ShapeDtypeStruct((1, *population.examples.x.shape[1:]), jnp.float32)
    params = jax.eval_shape(objective.init, jax.random.key(0), x)
    update = algorithm.client_update(config, objective.loss_fn)
    algorithm.check_memory(config, update, params, len(population.count))
    part, fleet = participate.make(
        config, population.count, update, params, objective.loss_fn, population.examples
    )
    share = 1.0
    if short is not None:
        steps = participate.local_steps(config, population.count)
        part, share = participation.shortened(part, steps, short)
    if part.schedule is not None:
        oldest = int(part.schedule.staleness.max())
        algorithm.check_memory(config, update, params, len(population.count), oldest + 1)
    weigh = None
    if data.held_out is not None:
        weigh = call(
            by_experience, "fed", predict=objective.predict,
            held_out=jax.tree.map(jnp.asarray, data.held_out),
            mos_share=config.fed.mos_share, temperature=config.fed.temperature,
        )  # fmt: skip
    make = functools.partial(
        build.make_engine,
        config, objective.loss_fn, population.offset, population.count, data.root,
        participation=part, weigh=weigh, staleness_power=config.participation.staleness_power,
    )  # fmt: skip
    return lambda rates: make(rates=rates), fleet, share


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    group: distributed.Group = distributed.ALONE,
    retune: bool = False,
    gate: network.Gate | None = None,
) -> dict[str, Any] | None:
    """Trains to the last round, from the last sound checkpoint if there is one.

    Args:
      config: Of the run.
      workdir: Its folder.
      group: The processes, all of which call this alike; the first writes.
      retune: Measure anew what ``config.perf`` leaves open, unless the run has chosen already.
      gate: Where clients that are other processes come in; None simulates them.

    Returns:
      The summary that the command prints: rounds, digest of the parameters, metrics, seconds. None
      on the other processes.

    Raises:
      RunError: bad config, unwritable or foreign workdir, no sound checkpoint.
    """
    build.check(config)
    distributed.check(config, group)
    if gate is not None:
        network.check(config)
    workdir = files.writable_folder(workdir, "workdir")
    with group.entered(files.locked, workdir / ".lock", f"workdir {workdir}"):
        # The workdir is pinned to this config only when everything could be built from it.
        known = group.first(manifest.check, workdir, build.plain_config(config)) or {}
        build.set_devices(config, known.get("tuned"), group.count)
        run = prepare(config, workdir, group, known.get("tuned"), retune)
        rows = trees.sha256((run.population.examples, run.population.offset))
        group.same("the training rows", rows, "expected the same prepared dataset everywhere")
        staged = group.exchange("staged bytes", str(distributed.bytes_here(run.examples)))
        asked = build.plain_config(config)  # in which "auto" is still open
        record = group.first(_open_record, run, asked, rows, [int(n) for n in staged])
        facts = data_report(run)
        group.first(files.write_json, workdir / "data.json", facts)
        distributed.check_shared(group, workdir / "data.json")
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep, group)
        with contextlib.closing(checkpoints):
            state, seconds = _rounds(run, checkpoints, gate)
        return _finish(run, record, facts, state, seconds)


def _open_record(
    run: Run, asked: dict[str, Any], fingerprint: str, staged: list[int]
) -> dict[str, Any]:
    """The manifest, from here on pinned to the config that was asked for and to the rows.

    ``staged`` are the bytes of rows on the devices of each process.
    """
    record = manifest.open_run(run.workdir, asked)
    record |= {"privacy": run.ledger.claim, "tuned": run.tuned}
    record |= {"processes": len(staged), "staged_bytes": staged}
    manifest.pin_data(run.workdir, record, fingerprint)
    return record


def _initial(run: Run) -> Any:
    x = jnp.asarray(run.population.examples.x[:1])
    params = run.objective.init(jax.random.fold_in(run.key, 0), x)
    run.group.same(
        "the initial parameters", trees.sha256(params), "expected equal versions and processors"
    )
    return run.engine.init(params)


def _rounds(
    run: Run, checkpoints: Checkpoints, gate: network.Gate | None = None
) -> tuple[Any, float]:
    """Runs what is left of the rounds; returns the last state and the seconds spent."""
    state = _initial(run)
    if gate is not None:
        network.check_state(run.engine, state)
    first, end = 0, run.ledger.rounds
    like = run.engine.message(state.params)
    message = codec.nbytes(wired.tree_spec(like))
    if run.config.exchange.mode in exchange.MASKED:
        message = sums.input_bytes(like)
    found = checkpoints.restore(state)
    if found is not None:
        first, state = found
        LOG.info("resuming after round %d of %d", first, end)
    start = time.perf_counter()
    key = jax.random.fold_in(run.key, 1)
    sizes = rounds.blocks(run.config, first, end)
    with (
        run.group.entered(_writer, run.workdir, first) as writer,
        opening.opened(run.config, run.workdir, like, run.population.count, gate) as wire,
    ):
        for n in run.group.first(progress, sizes, end, first) or sizes:
            state, rows = _block(run, wire, state, key, n)
            last = int(rows[-1]["round"])
            due = rounds.due(last, run.config.evaluation.every, end)
            run.group.first(_log, run, writer, rows, models(run, state) if due else None, message)
            if rounds.due(last, run.config.checkpoint.every, end):
                checkpoints.save(last, state)
            LOG.info("round %d: %s", last, rounds.line(rows[-1]))
        opening.conclude(wire)
    if run.ledger.stopped:
        LOG.warning("%s", run.ledger.stopped)
    return state, time.perf_counter() - start


def _writer(workdir: pathlib.Path, first: int) -> contextlib.closing[MetricsWriter]:
    return contextlib.closing(MetricsWriter(workdir, first))


def _log(
    run: Run, writer: MetricsWriter, rows: list[dict[str, Any]], params: Any, message: int
) -> None:
    """Writes the rows of a block, the last with test figures if there are ``params`` to test."""
    if params is not None:
        rows[-1]["test"] = quick(run, params)
    for row in rows:
        if run.fleet is not None:
            key = jax.random.fold_in(run.key, 1)
            row["simulated"] = simulated(run, run.fleet, key, row["round"] - 1)
        writer.write(row | _costs(run, row["round"], message))


def models(run: Run, state: Any) -> Any:
    """The global parameters, or every client's own, on the host; all processes must call it."""
    own = run.engine.models
    return run.group.host(state.params if own is None else own(state))


def simulated(run: Run, fleet: participate.Fleet, key: jax.Array, number: int) -> dict[str, Any]:
    """What round ``number`` (from 0) would have taken on the devices of ``fleet``."""
    return fleet.row(number, jax.device_get(run.engine.cohort_for(jnp.int32(number), key)))


def quick(run: Run, params: Any) -> dict[str, float]:
    """A few figures of a state's ``models`` on the test split."""
    stacked = run.engine.models is not None
    return evaluate.quick(run.predict, params, stacked, run.data.test, run.data.spec)


def _costs(run: Run, number: int, message: int) -> dict[str, Any]:
    """What a round has cost: bytes of one client's update, and epsilon so far where it is kept."""
    spent = {} if run.ledger.epsilon is None else {"epsilon": run.ledger.epsilon(number)}
    return {"update_bytes": message, **spent}


def _block(
    run: Run, wire: opening.Wire | None, state: Any, key: jax.Array, n: int
) -> tuple[Any, list[dict[str, Any]]]:
    """``n`` rounds, fused, wired or masked, and their rows for metrics.jsonl."""
    several = len(run.data.spec.label_names) > 1
    if wire is None:
        start = time.perf_counter()
        before = int(state.round)
        state, stacked = run.engine.block(state, run.examples, key, n)
        stacked = jax.device_get(stacked)
        seconds = (time.perf_counter() - start) / n
        each = [jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(n)]
        return state, [rounds.row(before + i + 1, m, seconds, several) for i, m in enumerate(each)]
    rows = []
    for _ in range(n):
        start = time.perf_counter()
        if isinstance(wire.exchange, sums.Session):
            done = masked.run_round(
                run.engine, wire.exchange, state, run.examples, key, wire.ledger
            )
        elif isinstance(wire.exchange, network.Remote):
            done = network.run_round(
                run.engine, wire.exchange, state, run.examples, key, wire.ledger
            )
        else:
            done = wired.run_round(run.engine, wire.exchange, state, run.examples, key, wire.ledger)
        state, metrics, cost = done
        seconds = time.perf_counter() - start
        row = rounds.row(int(state.round), metrics, seconds, several)
        rows.append(row | {"wire": cost})
    return state, rows


def data_report(run: Run) -> dict[str, Any]:
    """What the rows are and who holds them: data.json, and the report's data section."""
    names = run.data.spec.label_names
    table = build.partition.summary(run.population.parts, run.data.train.label, classes=len(names))
    return {
        "dataset": run.data.spec.dataset,
        "cleaning": run.data.report,
        "rows": {"train": len(run.data.train.label), "test": len(run.data.test.label)},
        "features": list(run.data.stats.names),
        "labels": list(names),
        "clients": {"rows": run.population.count, "per_class": table},
    }


def _finish(
    run: Run, record: dict[str, Any] | None, facts: dict[str, Any], state: Any, seconds: float
) -> dict[str, Any] | None:
    """Reports on the trained model; all processes must call it, and the first does the work."""
    params, done = models(run, state), int(state.round)
    return run.group.first(_conclude, run, record or {}, facts, params, done, seconds)


def _conclude(
    run: Run, record: dict[str, Any], facts: dict[str, Any], params: Any, done: int,
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    model = Model(
        run.data.spec, run.data.stats, build.plain_config(run.config), run.label_counts,
        build.mos_mean(run.data.train), params, run.engine.models is not None,
    )  # fmt: skip
    model = calibrate.of_run(model, run.population, run.data, run.predict)
    save_model(run.workdir / "model", model)
    natural = run.config.clients.partition == "natural"
    owner = build.owners(run.population, run.data) if natural else None
    result = evaluate.evaluate_model(model, run.data.test, run.data.half_width, owner=owner)
    summary = result.summary
    if owner is not None:
        summary = summary | {"own_rows": evaluate.own_rows(model, run.data.test, owner)}
    files.write_json(run.workdir / "evaluation.json", summary)
    record |= {"finished": manifest.now(), "params_sha256": trees.sha256(params)}
    record["rounds"] = done
    if run.config.exchange.mode != "none":
        record["log"] = opening.close_log(run.config, run.workdir, record["params_sha256"], done)
    files.write_json(run.workdir / "manifest.json", record)
    page = report.write(run.workdir, result, facts, run.data.spec.services)
    wire = report.wire_totals(read_rows(run.workdir / "metrics.jsonl"))
    return {
        "workdir": str(run.workdir),
        "rounds": done,
        "params": trees.count(params),
        "params_sha256": record["params_sha256"],
        "train_rows": len(run.data.train.label),
        "seconds": round(seconds, 3),
        **({} if wire is None else {"wire": wire}),
        **({"stopped": run.ledger.stopped} if run.ledger.stopped else {}),
        **{k: result.summary[k] for k in ("accuracy", "macro_f1", "mos") if k in result.summary},
        "report": str(page),
    }
