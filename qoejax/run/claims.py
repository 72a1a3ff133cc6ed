"""Every claim of the framework's paper as an experiment that could fail, and all of them run.

A claim's study (``run.study``) is found by the name of its module. Its units of work are kept in a
folder of its own below the workdir, its outcome beside them, so a run that was stopped goes on; the
page is written anew after each study. A study that raises is reported as such, and the next begins.
"""

import concurrent.futures
import contextlib
import importlib
import logging
import multiprocessing
import os
import pathlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from qoejax.data import load
from qoejax.run import cache, claims_page, files, manifest, study
from qoejax.run.claims_page import BROKEN, MISSING
from qoejax.run.errors import RunError
from qoejax.run.studies import overview
from qoejax.run.studies.fits import SIMULATED

LOG = logging.getLogger("qoejax")

FULL_MINUTES = 60
"""On 2 cores, with the simulated data alone; rows of people and of networks come on top."""

LEAST_MINUTES = 5
FIXED_MINUTES = 3
"""What a run takes whatever its scale: processes begin, and every program is compiled once."""


class Claim(NamedTuple):
    """What is claimed, how it is tried, and what counts as passing."""

    says: str  # the framework's paper, in our words
    experiment: str
    passes: str
    run: str  # the module with ``study``, below qoejax.run
    share: float  # of the budget
    needs: str = "simulated rows"


CLAIMS: dict[str, Claim] = {
    "precision": Claim(
        "The hybrid detects intrusions with a higher precision than other models.",
        "The hybrid and all contenders, tuned with the same number of trials on training rows, "
        "judged on the test rows of the simulated and of each prepared real dataset.",
        "Macro-F1 above that of the best contender and precision at a recall of 0.95 too, all "
        "intervals over seeds and over test rows above 0, on at least two of three datasets, and "
        "on two thirds of those compared.",
        "studies.precision", 0.20, "simulated rows, and real ones where they are prepared",
    ),
    "shortcut": Claim(
        "What is detected is attacks (tacit).",
        "Sentinels that should fail: stump, single columns, window size, nearly equal rows, and "
        "the hybrid's own labels shuffled.",
        "On every dataset the best sentinel at least 10 points of macro-F1 below the hybrid, and "
        "shuffled labels within 10 points of chance.",
        "studies.shortcut", 0.01, "simulated rows, and real ones where they are prepared",
    ),
    "generalises": Claim(
        "The detector generalises.",
        "Trained without one attack family, or at slow sites only, and asked for attack or benign "
        "about the family left out, or at fast sites; beside gradient boosting.",
        "False positive rate at a recall of 95 % not above that of gradient boosting, and macro-F1 "
        "not below it, on average over the hold-outs.",
        "studies.holdouts", 0.06,
    ),
    "latency": Claim(
        "One joint model has a lower latency.",
        "One record at a time on one core, raw columns to outputs: the joint hybrid and its two "
        "single-task twins take turns; boosting beside them.",
        "99th percentile of the joint model at most 0.65 of the sum of its twins', for single "
        "records and for windows.",
        "studies.latency", 0.03,
    ),
    "early": Claim(
        "Attacks are detected early.",
        "Time from the onset of an attack to the first alarm in the simulator, thresholds set to "
        "the same false positive rate; beside CUSUM on the rate and an LSTM.",
        "Median delay at a false positive rate of 1e-3 not above that of the best baseline.",
        "early", 0.03,
    ),
    "mos": Claim(
        "Quality of experience is predicted well.",
        "Forecasts of the scores of four services 1 to 10 s ahead in the simulator, beside "
        "persistence of the true score, histogram boosting and a GRU; people's own scores, "
        "cross-validated by subject, where they are prepared.",
        "Skill over persistence above 0 at every horizon of 3 s or more, a smaller error than "
        "histogram boosting (intervals above 0), and on people's scores a PLCC at most 0.02 below "
        "histogram boosting.",
        "studies.forecasts", 0.02, "simulated rows, and people's scores where they are prepared",
    ),
    "joint": Claim(
        "Predicting both at once improves both.",
        "The joint hybrid against two single-task twins, of its own size each, and of its size in "
        "sum.",
        "Against both pairs: macro-F1 not worse by 0.5 points and RMSE not by 2 % (ends of the "
        "intervals), and one of the two better (interval above 0).",
        "studies.joint", 0.10,
    ),
    "decisions": Claim(
        "Security and experience are balanced.",
        "Closed loop in the simulator: which sources are allowed, limited or blocked, by joint "
        "utility and by single-purpose policies, over damage and prevalence.",
        "Utility above the best of tuned threshold, cost-sensitive Bayes, QoE-only and separate "
        "models fused by the product, interval above 0, in at least half of the grid.",
        "decisions", 0.08,
    ),
    "federated": Claim(
        "Federated training is as good as centralised training.",
        "Sites as they are and Dirichlet 1.0, 0.3 and 0.1: FedAvg and the same with moments "
        "shared, at 0.1 SCAFFOLD, at sites FedBN and personal heads, beside centralised and "
        "local-only training.",
        "Macro-F1 of the best algorithm at most 2 points below centralised at 1.0 and 5 at 0.3, "
        "and better than local-only for at least 80 % of the clients; 0.1 is reported.",
        "studies.federated", 0.22,
    ),
    "protection": Claim(
        "Post-quantum protection costs no accuracy and little time.",
        "The same rounds in the clear, with sealed and signed updates, and with masked sums.",
        "Equal parameters when sealed, within the bound of quantisation when masked, and less "
        "than 10 % of the round's time spent waiting for either.",
        "studies.protection", 0.05,
    ),
    "uncertainty": Claim(
        "Its confidence can be trusted (tacit).",
        "Calibration, coverage of prediction sets and intervals by client, and unknown attacks.",
        "Of the test rows, class sets and intervals of scores hold 90 %, less what chance explains "
        "once in a hundred studies; clients and unknown attacks are reported.",
        "uncertainty", 0.08,
    ),
    "needed": Claim(
        "Convolution and attention are both needed.",
        "The hybrid without convolution, without attention over tokens, with one record instead "
        "of a window, and an MLP in its place, all in half the rounds.",
        "Each of them has a lower macro-F1 and a larger error, all intervals above 0.",
        "studies.needed", 0.12,
    ),
}  # fmt: skip
"""By name, in the order in which they are run."""


class Plan(NamedTuple):
    """What a budget buys."""

    minutes: float
    scale: float
    seeds: int


def plan(minutes: float, seeds: int) -> Plan:
    """Scale and seeds of a budget: never fewer than two seeds, which an interval needs.

    Raises:
      RunError: a budget or a number of seeds out of range.
    """
    if not LEAST_MINUTES <= minutes <= FULL_MINUTES or seeds < 2:
        raise RunError(
            f"budget {minutes:g} minutes, {seeds} seeds: expected {LEAST_MINUTES} to "
            f"{FULL_MINUTES} minutes and 2 seeds or more"
        )
    scale = (minutes - FIXED_MINUTES) / (FULL_MINUTES - FIXED_MINUTES)
    return Plan(minutes, scale, max(2, round(seeds * min(1.0, 2 * scale))))


class Asked(NamedTuple):
    """What all studies of a run share."""

    plan: Plan
    data_dir: str
    configs: Mapping[str, Any]
    command: str


def run(
    workdir: pathlib.Path,
    asked: Asked,
    only: Sequence[str] = (),
    output: pathlib.Path | None = None,
    claims: Mapping[str, Claim] = CLAIMS,
    find: Callable[[str], Callable[[study.Context], study.Outcome]] | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Runs or resumes the studies, and writes ``claims.md``, ``claims.json`` and figures.

    Args:
      workdir: Gets all of it; one run at a time.
      asked: Budget, rows, configs.
      only: Names of the claims to try; all if empty. Of the others the page shows what is kept.
      output: A second place for the page; its figures go to ``figures`` beside it.
      claims: By name.
      find: The study of a module's name.
      workers: Processes that fit side by side; 1 leaves all to this one.

    Returns:
      Counts by verdict, seconds, the path of the page, and ``broken``: the studies that raised.

    Raises:
      RunError: an unknown name, or a workdir that is not to be written to.
    """
    if unknown := [name for name in only if name not in claims]:
        raise RunError(f"no claim is called {unknown[0]!r}: expected some of {', '.join(claims)}")
    start, names, records = time.perf_counter(), list(only or claims), {}
    workdir = files.writable_folder(workdir, "workdir")
    with files.locked(workdir / ".lock", f"workdir {workdir}"), _processes(workers) as pool:
        if claims is CLAIMS:
            load.builder(SIMULATED, asked.data_dir or None)
        for name in names:
            LOG.info("%s: %s", name, claims[name].says)
            record = _try(workdir / name, claims[name], asked, find or study_of, pool)
            LOG.info("%s: %s. %s", name, record["verdict"], record["reason"])
            records = write(workdir, asked, claims, output)["claims"]
    return {
        **claims_page.counts(records),
        "seconds": round(time.perf_counter() - start, 1),
        "path": str(output or workdir / "claims.md"),
        "broken": [name for name in names if records[name]["verdict"] == BROKEN],
    }


def failed(result: Mapping[str, Any]) -> str:
    """The sentence on studies that raised, or nothing; a claim that fails is a result."""
    broken = result["broken"]
    return f"these studies failed to run: {', '.join(broken)}" if broken else ""


def study_of(module: str) -> Callable[[study.Context], study.Outcome]:
    """The ``study`` of a module below qoejax.run."""
    return importlib.import_module(f"qoejax.run.{module}").study


def _begin() -> None:
    """In each process: it ends with its parent, even one that was killed."""
    cache.keep_compiled()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only processes of a pool begin so
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _processes(count: int) -> Iterator[concurrent.futures.Executor | None]:
    """So many, which last as long as all studies; None for one."""
    if count < 2:
        yield None
        return
    spawn = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(count, spawn, initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _try(
    folder: pathlib.Path,
    claim: Claim,
    asked: Asked,
    find: Callable[[str], Callable[[study.Context], study.Outcome]],
    pool: concurrent.futures.Executor | None,
) -> dict[str, Any]:
    """One study; its outcome, or what it raised, is kept in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    spent = _Clock(folder)
    try:
        context = study.Context(
            asked.data_dir, folder, asked.plan.seeds, asked.plan.scale, asked.configs, pool
        )
        found = find(claim.run)(context)
        if found.verdict not in study.VERDICTS:
            raise RunError(f"{claim.run}: {found.verdict!r} is no verdict")
        record = {**found._asdict(), "error": ""}
    except Exception as e:  # whatever it is, it is this study's alone
        files.write_bytes(folder / "error.txt", traceback.format_exc().encode())
        LOG.exception("%s failed to run", folder.name)
        kind = "" if isinstance(e, RunError) else f"{type(e).__name__}: "
        record = {"verdict": BROKEN, "reason": f"{kind}{e}", "rows": [], "figures": [],
                  "error": traceback.format_exc()}  # fmt: skip
    finally:
        seconds = spent.stop()
    record |= {"plan": asked.plan._asdict(), "seconds": seconds, "at": manifest.now()}
    files.write_json(folder / "outcome.json", record)
    return record


class _Clock:
    """Seconds that a study has had in all sessions; one that was killed counts to its last unit."""

    def __init__(self, folder: pathlib.Path):
        self._path, self._start = folder / "clock.json", time.time()
        self._before = 0.0
        if self._path.exists():
            kept = files.read_json(self._path, "the clock of a study")
            self._before = kept["seconds"]
            if kept["running_since"] is not None:
                places = [folder, folder.parent / "fits"]
                units = [p.stat().st_mtime for place in places for p in place.glob("*.json")]
                self._before += max(0.0, max(units, default=0.0) - kept["running_since"])
        self._write(self._before, self._start)

    def _write(self, seconds: float, since: float | None) -> None:
        files.write_json(self._path, {"seconds": seconds, "running_since": since})

    def stop(self) -> float:
        """Seconds so far."""
        total = self._before + time.time() - self._start
        self._write(total, None)
        return total


def write(
    workdir: pathlib.Path,
    asked: Asked,
    claims: Mapping[str, Claim],
    output: pathlib.Path | None = None,
) -> dict[str, Any]:
    """The page, its figures and ``claims.json``, of the outcomes that are kept for this plan."""
    records: dict[str, dict[str, Any]] = {}
    for name in claims:
        path = workdir / name / "outcome.json"
        kept = files.read_json(path, "a study's outcome") if path.exists() else None
        if kept is None or kept["plan"] != files.plain(asked.plan._asdict()):
            kept = {"verdict": MISSING, "reason": "", "rows": [], "figures": [], "seconds": None}
        records[name] = kept
    models = [row for name in ("precision", "mos") for row in records.get(name, {}).get("rows", [])]
    drawn = overview.draw(models, workdir / "overview.png")
    result = {
        "command": asked.command, "plan": asked.plan._asdict(),
        "environment": manifest.environment(), "claims": records,
        "overview": "overview.png" if drawn else None,
    }  # fmt: skip
    files.write_json(workdir / "claims.json", result)
    claims_page.write(workdir, workdir / "claims.md", claims, result)
    if output is not None:
        claims_page.write(workdir, output, claims, result, figures="figures")
    return result
