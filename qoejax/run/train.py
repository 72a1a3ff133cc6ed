"""The host loop: blocks of rounds on the device, files and progress in between."""

import contextlib
import logging
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from qoejax import trees
from qoejax.fed.evaluate import make_evaluator
from qoejax.fed.judge import by_experience
from qoejax.run import (
    algorithm,
    build,
    evaluate,
    exchange,
    files,
    manifest,
    masked,
    participate,
    privacy,
    report,
    transparency,
    wired,
)
from qoejax.run.checkpoint import Checkpoints
from qoejax.run.choices import call
from qoejax.run.enrol import PASSPHRASE
from qoejax.run.errors import RunError
from qoejax.run.model import Model
from qoejax.run.model import save as save_model
from qoejax.run.progress import progress
from qoejax.run.writer import MetricsWriter
from qoejax.types import Examples
from qoejax.wire import codec, suites
from qoejax.wire.exchange import Exchange
from qoejax.wire.kem import SelfTestError
from qoejax.wire.keyfile import KeyFileError
from qoejax.wire.log.errors import LogError
from qoejax.wire.pool import WorkerError

LOG = logging.getLogger("qoejax")


class Run(NamedTuple):
    """Everything that a run needs and that does not change from round to round."""

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    data: build.Data
    population: build.Population
    objective: Any
    engine: Any
    fleet: participate.Fleet | None  # simulated devices
    predict: Any  # compiled once: a run evaluates many times
    examples: Examples  # on the device
    key: jax.Array
    label_counts: np.ndarray
    ledger: privacy.Ledger


def prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Run:
    """Data, model and engine of a config; compiles nothing yet."""
    data = build.data(config)
    population = build.population(config, data)
    counts = np.bincount(data.train.label, minlength=len(data.spec.label_names))
    objective = build.objective(config, data.spec, counts)
    engine, fleet = _engine(config, data, population, objective)
    predict = make_evaluator(objective.predict, config.evaluation.batch)
    staged = engine.place(jax.tree.map(jnp.asarray, population.examples))
    key = jax.random.key(config.seed)
    ledger = privacy.ledger(config, engine, jax.random.fold_in(key, 1), population.count)
    return Run(
        config, workdir, data, population, objective, engine, fleet, predict, staged, key, counts,
        ledger,
    )  # fmt: skip


def _engine(
    config: ml_collections.ConfigDict,
    data: build.Data,
    population: build.Population,
    objective: Any,
) -> tuple[Any, participate.Fleet | None]:
    """The engine, once everything that its shapes can rule out is ruled out; and its devices."""
    x = jax.ShapeDtypeStruct((1, *population.examples.x.shape[1:]), jnp.float32)
    params = jax.eval_shape(objective.init, jax.random.key(0), x)
    update = algorithm.client_update(config, objective.loss_fn)
    algorithm.check_memory(config, update, params, len(population.count))
    part, fleet = participate.make(
        config, population.count, update, params, objective.loss_fn, population.examples
    )
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
    engine = build.make_engine(
        config, objective.loss_fn, population.offset, population.count, data.root,
        participation=part, weigh=weigh, staleness_power=config.participation.staleness_power,
    )  # fmt: skip
    return engine, fleet


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains to the last round, from the last sound checkpoint if there is one.

    Returns:
      The summary that the command prints: rounds, digest of the parameters, metrics, seconds.

    Raises:
      RunError: bad config, unwritable or foreign workdir, no sound checkpoint.
    """
    build.check(config)
    build.set_devices(config)
    workdir = files.writable_folder(workdir, "workdir")
    with files.locked(workdir / ".lock", f"workdir {workdir}"):
        # The workdir is pinned to this config only when everything could be built from it.
        manifest.check(workdir, build.plain_config(config))
        run = prepare(config, workdir)
        record = manifest.open_run(workdir, build.plain_config(config))
        record["privacy"] = run.ledger.claim
        rows = run.population.examples
        manifest.pin_data(workdir, record, trees.sha256((rows, run.population.offset)))
        facts = data_report(run)
        files.write_json(workdir / "data.json", facts)
        with contextlib.closing(Checkpoints(workdir / "checkpoints", config.checkpoint.keep)) as c:
            state, seconds = _rounds(run, c)
        return _finish(run, record, facts, state, seconds)


def _initial(run: Run) -> Any:
    params = run.objective.init(jax.random.fold_in(run.key, 0), run.examples.x[:1])
    return run.engine.init(params)


def _rounds(run: Run, checkpoints: Checkpoints) -> tuple[Any, float]:
    """Runs what is left of the rounds; returns the last state and the seconds spent."""
    state = _initial(run)
    first, end = 0, run.ledger.rounds
    like = run.engine.message(state.params)
    message = codec.nbytes(wired.tree_spec(like))
    if run.config.exchange.mode in exchange.MASKED:
        message = masked.input_bytes(like)
    found = checkpoints.restore(state)
    if found is not None:
        first, host = found
        state = jax.tree.map(jnp.asarray, host)
        LOG.info("resuming after round %d of %d", first, end)
    start = time.perf_counter()
    writer = MetricsWriter(run.workdir, first)
    key = jax.random.fold_in(run.key, 1)
    with contextlib.closing(writer), _exchange(run, state.params) as wire:
        for n in progress(_blocks(run.config, first, end), end, first):
            state, rows = _block(run, wire, state, key, n)
            if run.fleet is not None:
                for row in rows:
                    row["simulated"] = _simulated(run, run.fleet, key, row["round"] - 1)
            last = int(rows[-1]["round"])
            if _due(last, run.config.evaluation.every, end):
                rows[-1]["test"] = _quick(run, state)
            for row in rows:
                writer.write(row | _costs(run, row["round"], message))
            if _due(last, run.config.checkpoint.every, end):
                checkpoints.save(last, state)
            LOG.info("round %d: %s", last, _line(rows[-1]))
    if run.ledger.stopped:
        LOG.warning("%s", run.ledger.stopped)
    return state, time.perf_counter() - start


def _simulated(run: Run, fleet: participate.Fleet, key: jax.Array, number: int) -> dict[str, Any]:
    return fleet.row(number, jax.device_get(run.engine.cohort_for(jnp.int32(number), key)))


def _quick(run: Run, state: Any) -> dict[str, float]:
    models = run.engine.models
    params = state.params if models is None else models(state)
    return evaluate.quick(run.predict, params, models is not None, run.data.test, run.data.spec)


def _costs(run: Run, number: int, message: int) -> dict[str, Any]:
    """What a round has cost: bytes of one client's update, and epsilon so far where it is kept."""
    spent = {} if run.ledger.epsilon is None else {"epsilon": run.ledger.epsilon(number)}
    return {"update_bytes": message, **spent}


def _due(step: int, every: int, end: int) -> bool:
    return step % every == 0 or step == end


def _blocks(config: ml_collections.ConfigDict, first: int, end: int) -> Iterator[int]:
    """Sizes of the blocks to come; they end where something is due, whatever they began at."""
    done = first
    every = (config.perf.rounds_per_dispatch, config.evaluation.every, config.checkpoint.every)
    while done < end:
        n = min([e - done % e for e in every] + [end - done])
        yield n
        done += n


class Wire(NamedTuple):
    """An exchange, or a session of masked sums, and the log of what happens in it."""

    exchange: Exchange | masked.Session
    ledger: transparency.Ledger


@contextlib.contextmanager
def _exchange(run: Run, params: Any) -> Iterator[Wire | None]:
    c = run.config.exchange
    if c.mode == "none":
        yield None
        return
    with _wire_errors(), _open_ledger(run) as ledger:
        if c.mode in exchange.MASKED:
            made = exchange.session(
                run.config, run.engine.message(params), run.population.count,
                run.workdir / "keys", **_key_files(c),
            )  # fmt: skip
            yield Wire(made, ledger)
            return
        with contextlib.closing(_open_exchange(run, params)) as made:
            yield Wire(made, ledger)


@contextlib.contextmanager
def _wire_errors() -> Iterator[None]:
    try:
        yield
    except (KeyFileError, SelfTestError, WorkerError, LogError) as e:
        raise RunError(f"the wire: {e}") from e


def _open_ledger(run: Run) -> transparency.Ledger:
    c = run.config.exchange
    path = pathlib.Path(c.log_key) if c.log_key else run.workdir / "keys" / "log.key"
    files_of = _key_files(c)
    key = transparency.cosigner(
        path, c.signer, files_of.get("passphrase"), plain=files_of.get("plain_keys", False)
    )
    trusted = transparency.with_log(c.witnesses, key.verifier)
    digest = transparency.config_digest(build.plain_config(run.config))
    return transparency.Ledger(run.workdir / "log", key, trusted, digest)


def _open_exchange(run: Run, params: Any) -> Exchange:
    c = run.config.exchange
    # The norm of a compressed message says nothing of the delta in it.
    max_norm = run.config.server.max_norm if run.config.compress.method == "none" else math.inf
    chosen = suites.suite(c.suite, c.unsafe)
    if chosen.status != "standard":
        LOG.warning("suite %#06x (%s) is %s: docs/wire.md", chosen.id, chosen.name, chosen.status)
    return Exchange(
        clients=len(run.population.count), signer=c.signer, kem_provider=c.kem_provider,
        spec=wired.tree_spec(run.engine.message(params)), workers=c.workers, suite=c.suite,
        session=c.session, confidential=c.confidential, unsafe=c.unsafe,
        max_norm=max_norm, key_dir=run.workdir / "keys", **_key_files(c),
    )  # fmt: skip


def _key_files(c: ml_collections.ConfigDict) -> dict[str, Any]:
    if c.key_files == "plain":
        return {"plain_keys": True}
    passphrase = os.environ.get(PASSPHRASE, "")
    if not passphrase:
        raise RunError(
            "config.exchange.key_files is 'encrypted', but the environment variable "
            f"{PASSPHRASE} is not set: expected the passphrase of the key files"
        )
    return {"passphrase": passphrase.encode()}


def _block(
    run: Run, wire: Wire | None, state: Any, key: jax.Array, n: int
) -> tuple[Any, list[dict[str, Any]]]:
    """``n`` rounds, fused, wired or masked, and their rows for metrics.jsonl."""
    if wire is None:
        start = time.perf_counter()
        before = int(state.round)
        state, stacked = run.engine.block(state, run.examples, key, n)
        stacked = jax.device_get(stacked)
        seconds = (time.perf_counter() - start) / n
        each = [jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(n)]
        return state, [_row(run, before + i + 1, m, seconds) for i, m in enumerate(each)]
    rows = []
    for _ in range(n):
        start = time.perf_counter()
        if isinstance(wire.exchange, masked.Session):
            done = masked.run_round(
                run.engine, wire.exchange, state, run.examples, key, wire.ledger
            )
        else:
            done = wired.run_round(run.engine, wire.exchange, state, run.examples, key, wire.ledger)
        state, metrics, cost = done
        seconds = time.perf_counter() - start
        rows.append(_row(run, int(state.round), metrics, seconds) | {"wire": cost})
    return state, rows


def _row(run: Run, number: int, sums: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A round's sums as the ratios that people read."""
    several = len(run.data.spec.label_names) > 1
    s = {k: float(v) for k, v in sums.items()}
    per = lambda a, b: s[a] / s[b] if s.get(b) else None  # noqa: E731
    mse = per("mos_se", "mos_count")
    return {
        "round": number,
        "loss": per("loss_sum", "count"),
        "accuracy": per("correct", "count") if several else None,
        "mos_rmse": None if mse is None else mse**0.5,
        "clients": int(s["clients"]),
        "refused": int(s["refused"]),
        "absent": int(s["absent"]),
        "examples": int(s["count"]),
        "seconds": round(seconds, 6),
    }


def _line(row: dict[str, Any]) -> str:
    parts = [f"loss {row['loss']:.4f}" if row["loss"] is not None else "no client"]
    parts += [f"{k} {v:.4f}" for k, v in row.get("test", {}).items() if isinstance(v, float)]
    return ", ".join(parts)


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


def _close_log(run: Run, params: str, rounds: int) -> dict[str, Any]:
    """Ends the log with the model that is saved; its head, for the manifest."""
    with _wire_errors(), _open_ledger(run) as ledger:
        ledger.finish(bytes.fromhex(params), rounds)
        head = ledger.head
    return {} if head is None else head._asdict() | {"root": head.root.hex()}


def _finish(
    run: Run, record: dict[str, Any], facts: dict[str, Any], state: Any, seconds: float
) -> dict[str, Any]:
    models = run.engine.models
    params = jax.device_get(state.params if models is None else models(state))
    model = Model(
        run.data.spec, run.data.stats, build.plain_config(run.config), run.label_counts,
        build.mos_mean(run.data.train), params, models is not None,
    )  # fmt: skip
    save_model(run.workdir / "model", model)
    result = evaluate.evaluate_model(model, run.data.test, run.data.half_width)
    summary = result.summary
    if run.config.clients.partition == "natural":
        owner = build.owners(run.population, run.data)
        summary = summary | {"own_rows": evaluate.own_rows(model, run.data.test, owner)}
    files.write_json(run.workdir / "evaluation.json", summary)
    record |= {"finished": manifest.now(), "params_sha256": trees.sha256(params)}
    record["rounds"] = int(state.round)
    if run.config.exchange.mode != "none":
        record["log"] = _close_log(run, record["params_sha256"], record["rounds"])
    files.write_json(run.workdir / "manifest.json", record)
    page = report.write(run.workdir, result, facts, run.data.spec.services)
    return {
        "workdir": str(run.workdir),
        "rounds": int(state.round),
        "params": trees.count(params),
        "params_sha256": record["params_sha256"],
        "train_rows": len(run.data.train.label),
        "seconds": round(seconds, 3),
        **({"stopped": run.ledger.stopped} if run.ledger.stopped else {}),
        **{k: result.summary[k] for k in ("accuracy", "macro_f1", "mos") if k in result.summary},
        "report": str(page),
    }
