"""One config at several seeds and rates: all members at once, or one after the other.

All members train on the same rows, the same clients and, where there are any, the same devices,
traces and malicious clients: those of ``data.seed``, or else of the config's own seed. Their
seeds decide how the model starts, who is sampled, and in what order rows come. A member is thus
the run of ``config_of``, and its folder is laid out as that of a run.
"""

import contextlib
import itertools
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from qoejax import trees
from qoejax.fed.sweep import Sweep, make_sweep
from qoejax.run import (
    algorithm,
    build,
    calibrate,
    evaluate,
    files,
    manifest,
    rounds,
    sweep_report,
    tables,
)
from qoejax.run.checkpoint import Checkpoints
from qoejax.run.errors import RunError
from qoejax.run.model import Model
from qoejax.run.model import save as save_model
from qoejax.run.progress import progress
from qoejax.run.train import Run, data_report, models, prepare, quick, simulated, train
from qoejax.run.writer import MetricsWriter

LOG = logging.getLogger("qoejax")

RATES = {
    "client.lr": tuple(algorithm.ALGORITHMS),
    "server.lr": tuple(algorithm.ALGORITHMS),
    "fed.mu": ("fedprox", "ditto"),
    "fed.alpha": ("feddyn",),
}
"""Keys whose values may differ among members that run at once, and algorithms that read them."""


class Member(NamedTuple):
    """One of the runs: its folder's name, its seed, and the values of the swept keys."""

    name: str
    seed: int
    values: dict[str, Any]


def parse(config: ml_collections.ConfigDict, over: Sequence[str]) -> dict[str, list[Any]]:
    """``KEY=V1,V2`` of the command line as values of the type that the config has there.

    Raises:
      RunError: an unknown key, a value of another type, one given twice.
    """
    swept: dict[str, list[Any]] = {}
    for text in over:
        key, given, values = text.partition("=")
        section, _, name = key.partition(".")
        known = section in config and isinstance(config[section], ml_collections.ConfigDict)
        if not given or not known or name not in config[section] or key in swept:
            raise RunError(
                f"--over={text}: expected KEY=VALUE,VALUE with a key of the config such as "
                "client.lr, each key once"
            )
        kind = type(config[section][name])
        try:
            swept[key] = [kind(value) for value in values.split(",")]
        except (TypeError, ValueError):
            raise RunError(
                f"--over={text}: expected values of type {kind.__name__}, separated by commas"
            ) from None
        if kind not in (int, float, str) or len(set(swept[key])) < len(swept[key]):
            raise RunError(f"--over={text}: expected different numbers or names")
    return swept


def members(
    config: ml_collections.ConfigDict, seeds: int, swept: Mapping[str, Sequence[Any]]
) -> list[Member]:
    """Every combination of the values, at ``seeds`` seeds from the config's own on."""
    if seeds < 1:
        raise RunError(f"--seeds={seeds}: expected 1 or more")
    found = []
    for values in itertools.product(*swept.values()):
        own = dict(zip(swept, values, strict=True))
        for seed in range(config.seed, config.seed + seeds):
            name = ",".join(f"{k}={v}" for k, v in {**own, "seed": seed}.items())
            found.append(Member(name.replace("/", "_"), seed, own))
    return found


def config_of(config: ml_collections.ConfigDict, member: Member) -> ml_collections.ConfigDict:
    """The config of a single run that is this member."""
    own = ml_collections.ConfigDict(config.to_dict())
    own.data.seed = tables.seed(config)
    own.seed = member.seed
    own.update_from_flattened_dict(member.values)
    return own.lock()


def check(config: ml_collections.ConfigDict, all_members: Sequence[Member]) -> None:
    """Refuses what members cannot share when they run at once.

    Raises:
      RunError: names the key, the reason and what to do.
    """
    instead = "choose other values, or run the members one after the other with --sequential"
    for key in all_members[0].values:
        if key not in RATES:
            raise RunError(
                f"--over={key}: members that run at once may differ in {', '.join(RATES)} and in "
                f"their seeds only; {instead}"
            )
        if config.fed.algorithm not in RATES[key]:
            raise RunError(
                f"--over={key}: {config.fed.algorithm} does not read it; expected "
                f"config.fed.algorithm of {', '.join(RATES[key])}"
            )
    if config.exchange.mode != "none":
        raise RunError(
            f"config.exchange.mode is {config.exchange.mode!r}, but members that run at once seal "
            f"nothing: expected 'none'; {instead}"
        )
    if config.perf.client_axis == "strict":
        raise RunError(
            "config.perf.client_axis is 'strict', whose chunks are dispatched one by one, but "
            f"members that run at once are one program: expected 'shard'; {instead}"
        )
    if config.privacy.mechanism != "none":
        raise RunError(
            f"config.privacy.mechanism is {config.privacy.mechanism!r}, whose budget each run "
            f"keeps for itself: expected 'none'; {instead}"
        )


def run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    seeds: int,
    over: Sequence[str] = (),
    sequential: bool = False,
    at_once: int = 0,
) -> dict[str, Any]:
    """Trains and scores all members; called again on the same workdir, it goes on.

    Args:
      config: What members share.
      workdir: Gets ``members/NAME/`` (``metrics.jsonl``, ``model/``, ``evaluation.json``),
        ``sweep.json``, ``sweep.md`` and ``plots/sweep.png``.
      seeds: Number of seeds of each setting.
      over: ``KEY=V1,V2`` of the keys to be swept.
      sequential: One run after the other, which allows every key and the wire.
      at_once: See ``fed.sweep.make_sweep``.

    Returns:
      The summary that the command prints: a row of means and intervals for each setting.

    Raises:
      RunError: bad config or flags, unwritable or foreign workdir, members that cannot share.
    """
    swept = parse(config, over)
    everyone = members(config, seeds, swept)
    for member in everyone:
        own = config_of(config, member)
        build.check(own)
        algorithm.client_update(own, lambda *_: None)  # refuses rates that it cannot take
    if at_once < 0 or (at_once and sequential):
        raise RunError(f"--at_once={at_once}: expected 0 (all) or more, and no --sequential")
    if not sequential:
        check(config, everyone)
    workdir = files.writable_folder(workdir, "workdir")
    asked = build.plain_config(config) | {
        "sweep": {"seeds": seeds, "over": swept, "sequential": sequential, "at_once": at_once}
    }
    with files.locked(workdir / ".lock", f"workdir {workdir}"):
        known = manifest.check(workdir, asked)
        if known is not None and "finished" in known:
            LOG.info("this sweep is finished: nothing is computed; see %s", workdir / "sweep.md")
            return files.read_json(workdir / "sweep.json", "the result of a sweep")
        start = time.perf_counter()
        if sequential:
            record = manifest.open_run(workdir, asked)
            for member in everyone:
                LOG.info("member %s", member.name)
                train(config_of(config, member), folder(workdir, member))
        else:
            record = _together(config, workdir, everyone, asked, at_once, known or {})
        return _finish(workdir, everyone, record, time.perf_counter() - start)


def folder(workdir: pathlib.Path, member: Member) -> pathlib.Path:
    """Where a member's files are."""
    return workdir / "members" / member.name


def _together(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    everyone: Sequence[Member],
    asked: dict[str, Any],
    at_once: int,
    known: dict[str, Any],
) -> dict[str, Any]:
    """Trains all members as one program; returns the manifest."""
    build.set_devices(config, known.get("tuned"))
    run = prepare(config_of(config, everyone[0]), workdir, tuned=known.get("tuned"))
    record = manifest.open_run(workdir, asked)
    record["tuned"] = run.tuned
    rows = run.population.examples
    manifest.pin_data(workdir, record, trees.sha256((rows, run.population.offset)))
    files.write_json(workdir / "data.json", data_report(run))
    keys = jnp.stack([jax.random.key(member.seed) for member in everyone])
    fold = jax.vmap(jax.random.fold_in, (0, None))
    params = jax.vmap(run.objective.init, (0, None))(fold(keys, 0), run.examples.x[:1])
    rates = {
        key: jnp.array([member.values[key] for member in everyone], jnp.float32)
        for key in everyone[0].values
    }
    sweep = make_sweep(run.make_engine, rates, at_once)
    state = _rounds(run, sweep, sweep.init(params), fold(keys, 1), everyone)
    for i, member in enumerate(everyone):
        _save(run, config_of(run.config, member), _own(state, i), folder(workdir, member))
    return record


def _own(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _rounds(run: Run, sweep: Sweep, state: Any, keys: jax.Array, everyone: Sequence[Member]) -> Any:
    """What is left of the rounds; a row's ``seconds`` are those of all members together."""
    first, end, several = 0, run.config.fed.rounds, len(run.data.spec.label_names) > 1
    with contextlib.ExitStack() as stack:
        kept = Checkpoints(run.workdir / "checkpoints", run.config.checkpoint.keep)
        stack.enter_context(contextlib.closing(kept))
        if (found := kept.restore(state)) is not None:
            first, state = found
            LOG.info("resuming after round %d of %d", first, end)
        writers = [
            stack.enter_context(contextlib.closing(MetricsWriter(path, first)))
            for path in (folder(run.workdir, member) for member in everyone)
        ]
        done = first
        for n in progress(rounds.blocks(run.config, first, end), end, first):
            start = time.perf_counter()
            state, sums = sweep.block(state, run.examples, keys, n)
            sums = jax.device_get(sums)
            seconds = (time.perf_counter() - start) / n
            for i, writer in enumerate(writers):
                for r in range(n):
                    row = rounds.row(done + r + 1, _own(_own(sums, i), r), seconds, several)
                    if run.fleet is not None:
                        row["simulated"] = simulated(run, run.fleet, keys[i], done + r)
                    if r == n - 1 and rounds.due(done + n, run.config.evaluation.every, end):
                        row["test"] = quick(run, models(run, _own(state, i)))
                    writer.write(row)
            done += n
            if rounds.due(done, run.config.checkpoint.every, end):
                kept.save(done, state)
            LOG.info("round %d of %d: %.3g s a round", done, end, seconds)
    return state


def _save(run: Run, config: ml_collections.ConfigDict, state: Any, where: pathlib.Path) -> None:
    """A member's model and its figures."""
    trained = Model(
        run.data.spec, run.data.stats, build.plain_config(config), run.label_counts,
        build.mos_mean(run.data.train), models(run, state), run.engine.models is not None,
    )  # fmt: skip
    trained = calibrate.of_run(trained, run.population, run.data, run.predict)
    save_model(where / "model", trained)
    result = evaluate.evaluate_model(trained, run.data.test, run.data.half_width, run.predict)
    files.write_json(where / "evaluation.json", result.summary)


def _finish(
    workdir: pathlib.Path, everyone: Sequence[Member], record: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Tables and figures over the members' folders; the manifest says so when all is there."""
    results = {m.name: (m.values, m.seed, folder(workdir, m)) for m in everyone}
    table = sweep_report.write(workdir, results)
    summary = {
        "workdir": str(workdir), "members": len(everyone), "settings": table,
        "seconds": round(seconds, 3), "report": str(workdir / "sweep.md"),
    }  # fmt: skip
    files.write_json(workdir / "sweep.json", summary)
    files.write_json(workdir / "manifest.json", record | {"finished": manifest.now()})
    return summary
