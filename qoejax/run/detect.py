"""Verdicts on a capture as it comes, window by window, in bounded memory (host).

An exported model is run without the network's code: this module imports no flax unless ``of_run``
is called.
"""

import collections
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int

from qoejax.data import capture, framing, packets, preprocess
from qoejax.data.errors import DataError
from qoejax.data.packet_windows import PACKETS, SECONDS, Sequences, Windowing, Windows
from qoejax.data.table import Spec
from qoejax.qoe import decide
from qoejax.run import artefact, calibration, outputs, taps
from qoejax.run.errors import RunError

_DIGITS = 6


class Judge:
    """Raw rows to verdicts, by programs of a few sizes (``artefact.SIZES``)."""

    def __init__(
        self,
        spec: Spec,
        mos_mean: Float64[np.ndarray, " Q"],
        run: Callable[[Float32[np.ndarray, "N T D"]], dict[str, Any]],
        costs: decide.Costs,
        fitted: calibration.Calibration | None = None,
    ):
        """Takes a model's description, ``run`` (raw rows to ``{"logits", "mos"}``), calibration.

        Raises:
          RunError: the model is not one of captures.
        """
        dataset, _, config = spec.dataset.partition("/")
        if dataset != "pcap_folder":
            raise RunError(
                f"this model is of {spec.dataset}: expected one of captures (pcap_folder)"
            )
        self.spec, self.windowing = spec, capture.CONFIGS[config]
        self._mos_mean, self._run, self._costs, self._fitted = mos_mean, run, costs, fitted

    def __call__(self, x: Float32[np.ndarray, "N T D"]) -> dict[str, np.ndarray]:
        """One array a column, as ``outputs.columns``."""
        largest = artefact.SIZES[-1]
        parts = [self._columns(x[i : i + largest]) for i in range(0, max(1, len(x)), largest)]
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}

    def warm(self) -> None:
        """Compiles every size, so that no verdict waits for a compiler."""
        for rows in artefact.SIZES:
            self(np.zeros((rows, self.spec.window, len(self.spec.columns)), np.float32))

    def _columns(self, x: Float32[np.ndarray, "n T D"]) -> dict[str, np.ndarray]:
        # Filled up here: what is made of the outputs is compiled for each number of rows too.
        rows = next(size for size in artefact.SIZES if size >= len(x))
        padded = np.zeros((rows, *x.shape[1:]), np.float32)
        padded[: len(x)] = x
        out = self._run(padded)
        columns = outputs.columns(self.spec, self._mos_mean, out, self._costs, self._fitted)
        return {name: column[: len(x)] for name, column in columns.items()}


def of_artefact(folder: pathlib.Path, costs: decide.Costs) -> Judge:
    """The judge of an exported model (``qoejax.run.export``)."""
    loaded = artefact.load(folder)
    runner = artefact.Runner(loaded)
    return Judge(loaded.spec, loaded.mos_mean, runner, costs, loaded.calibration)


def of_run(workdir: pathlib.Path, costs: decide.Costs) -> Judge:
    """The judge of a finished run.

    Raises:
      RunError: no finished run, or a model per client.
    """
    from qoejax.run import model  # with it comes the network's code

    trained = model.load(workdir)
    if trained.stacked:
        raise RunError(
            "this run has one model per client (local-only or personal); detect needs a shared one"
        )
    predict = trained.predictor()

    def run(x: Float32[np.ndarray, "N T D"]) -> dict[str, Any]:
        return predict(trained.params, preprocess.apply(trained.stats, x))

    return Judge(trained.spec, trained.mos_mean, run, costs, trained.calibration)


def idle_s(windowing: Windowing) -> float:
    """Silence, in seconds, after which what waits for its window to fill is best judged as it is.

    In windows of time, one window, so that a verdict comes within a window of its end. In windows
    of packets, long enough for a device that speaks every few seconds to fill its own.
    """
    return 30.0 if windowing.unit == PACKETS else float(windowing.size)


class Times:
    """Percentiles of any number of times in bounded memory, to within 1 %."""

    _edges = np.geomspace(1e-6, 1e9, 1741)  # 2 % apart

    def __init__(self):
        self._counts = np.zeros(len(self._edges) + 1, np.int64)

    def add(self, seconds: Float64[np.ndarray, " n"]) -> None:
        """Counts them in."""
        np.add.at(self._counts, np.searchsorted(self._edges, seconds), 1)

    def percentiles(self) -> dict[str, float | None]:
        """``p50`` and ``p99`` in seconds, None without any."""
        below = np.cumsum(self._counts)
        middle = np.sqrt(self._edges * np.r_[self._edges[0], self._edges[:-1]])
        values = np.r_[middle, self._edges[-1]]
        found = {q: np.searchsorted(below, q / 100 * below[-1]) for q in (50, 99)}
        return {f"p{q}": float(values[i]) if below[-1] else None for q, i in found.items()}


class Tally:
    """What a watch has said so far, in numbers."""

    def __init__(self):
        self.windows = self.packets = 0
        self.classes: collections.Counter[str] = collections.Counter()
        self.actions: collections.Counter[str] = collections.Counter()
        self.latency, self.delay = Times(), Times()

    def add(self, rows: dict[str, np.ndarray]) -> None:
        """Counts verdicts in."""
        self.windows += len(rows["delay_s"])
        self.classes.update(rows.get("class", np.zeros(0, str)).tolist())
        self.actions.update(rows.get("action", np.zeros(0, str)).tolist())
        self.latency.add(rows["latency_s"])
        self.delay.add(rows["delay_s"])

    def summary(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "windows": self.windows,
            "packets": self.packets,
            "classes": dict(self.classes),
            "actions": dict(self.actions),
            "latency_s": self.latency.percentiles(),
            "delay_s": self.delay.percentiles(),
        }


def detect(
    judge: Judge,
    tap: taps.Tap,
    say: Callable[[list[dict[str, Any]]], None],
    idle_s: float = 0.0,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Says verdicts on a capture until it ends; returns their summary.

    Verdicts are those of ``predict`` on the same packets, each as soon as its window is full or
    over. ``latency_s`` of a verdict is from the end of its window, by the packets' clock, and
    ``delay_s`` from when the tap gave the piece that completed it.

    Args:
      judge: the model.
      tap: the capture.
      say: receives verdicts, one dictionary a window, in order of their windows' ends.
      idle_s: a conversation that has been silent for longer joins the rest (in windows of packets),
        and all that waits is judged when no packet has come for so long; 0 is never. Either makes
        windows that ``predict`` does not make.
      stopped: whether the user asked to stop: a last record that is not whole is then no error.

    Returns:
      Counts and percentiles; ``error`` if the capture is damaged: verdicts on all before it have
      been said.
    """
    tally, start = Tally(), time.monotonic()
    skipped: collections.Counter[str] = collections.Counter()
    state, error, came, waits = capture.begin(), "", start, False

    def tell(found: Sequences, arrived: float) -> None:
        # A few at a time: of many windows at once, the first do not wait for the last.
        order = np.lexsort((found.last.start, found.last.end))
        for rows in np.split(order, range(artefact.SIZES[-1], len(order), artefact.SIZES[-1])):
            if len(rows):
                columns = _judged(judge, found, rows, state.origin, arrived)
                tally.add(columns)
                say(_listed(columns))

    try:
        for frames in framing.follow(tap.name, tap.chunks):
            now = time.monotonic()
            some = packets.decode(frames, skipped)
            if len(some.time):
                tally.packets += len(some.time)
                came, waits = now, True
                found, state = capture.step_now(state, some, judge.windowing, idle_s or np.inf)
                tell(found, now)
            elif waits and idle_s and now - came >= idle_s:
                found, state = capture.flush(state, judge.windowing)
                waits = False
                tell(found, now)
    except framing.CutOff as e:
        error = "" if stopped() else str(e)
    except DataError as e:
        error = str(e)
    found, state = capture.flush(state, judge.windowing)
    tell(found, time.monotonic())
    summary = {"input": tap.name, **tally.summary(), "left_out": len(state.held.key)}
    summary |= {"skipped": dict(skipped), "lost": tap.lost(), "seconds": time.monotonic() - start}
    return summary | ({"error": error} if error else {})


def _judged(
    judge: Judge, found: Sequences, rows: Int[np.ndarray, " n"], origin: float, arrived: float
) -> dict[str, np.ndarray]:
    """Columns of verdicts on some of the sequences."""
    last = Windows(*(column[rows] for column in found.last))
    columns = capture.identity(last) | judge(found.x[rows])
    ends = last.end
    if judge.windowing.unit == SECONDS:
        ends = origin + (last.tick + 1.0) * judge.windowing.size
    latency = np.maximum(time.time() - ends, 0.0)  # of a window that was cut short, 0
    delay = np.full(len(ends), time.monotonic() - arrived)
    return columns | {"latency_s": latency, "delay_s": delay}


def _listed(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    columns = [
        np.round(c.astype(np.float64), _DIGITS).tolist() if c.dtype.kind == "f" else c.tolist()
        for c in found.values()
    ]
    return [dict(zip(found, cells, strict=True)) for cells in zip(*columns, strict=True)]
