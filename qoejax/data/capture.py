"""A capture as sequences of equal windows, in one pass and bounded memory (NumPy, host).

The windows are those of ``qoejax.data.packet_windows``; their features and targets are explained in
docs/captures.md.
"""

import collections
import ipaddress
import math
import pathlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64

from qoejax.data import capture_files, framing, latency, packets
from qoejax.data import packet_windows as windows
from qoejax.data.errors import DataError
from qoejax.data.packet_features import COLUMNS
from qoejax.data.packet_windows import PACKETS, REST, SECONDS, Sequences, Windowing, Windows
from qoejax.data.table import Service, Spec, Table, make_table

CONFIGS: dict[str, Windowing] = {
    "packets": Windowing(PACKETS, 20, 4),
    "seconds": Windowing(SECONDS, 5, 4),
}
"""What a window is, by the config of ``pcap_folder``; the first is the default."""

WHOLE = (0.0, 1.0)


class Report(NamedTuple):
    """What became of a capture.

    ``left_out`` packets were too few for one more window; ``skipped`` counts those of link types
    that are not understood. ``labelled`` is the number of windows whose class is known.
    """

    packets: int
    windows: int
    left_out: int
    skipped: dict[str, int]
    warnings: tuple[str, ...]
    labelled: int = 0


class State(NamedTuple):
    """What a pass over a capture remembers; its size is bounded (``qoejax.data.packet_windows``).

    ``origin`` is the time of the first packet, NaN before it.
    """

    held: windows.Held
    past: windows.Past
    unanswered: latency.Open
    origin: float


def begin() -> State:
    """The state before a capture."""
    return State(*windows.nothing(len(latency.SERVICES)), latency.NONE_OPEN, math.nan)


def step(state: State, some: packets.Packets, windowing: Windowing) -> tuple[Sequences, State]:
    """Sequences whose following window is known, with its scores, after some packets more."""
    answers, unanswered = latency.match(state.unanswered, some)
    scores = _scores(answers, len(some.time))
    state = _joined(state, some, scores)._replace(unanswered=unanswered)
    return _cut(state, windowing, last=False, wait=True)


def end(state: State, windowing: Windowing) -> tuple[Sequences, State]:
    """The sequences that are left when nothing follows; in ``held``, the packets left out."""
    return _cut(state, windowing, last=True, wait=True)


def step_now(
    state: State, some: packets.Packets, windowing: Windowing, silence_s: float = math.inf
) -> tuple[Sequences, State]:
    """As ``step``, but each window's sequence as soon as the window is full, without scores.

    Args:
      state: of a pass that calls only this function and ``flush``.
      some: packets that came, in order of capture; none is allowed.
      windowing: what a window is.
      silence_s: in windows of packets, a conversation that has been silent for longer joins the
        rest, so that what is too short for a window is told all the same.
    """
    unrated = np.full((len(some.time), len(latency.SERVICES)), np.nan, np.float32)
    state = _joined(state, some, unrated)
    if windowing.unit == PACKETS and len(some.time) and silence_s < math.inf:
        state = state._replace(held=windows.silent(state.held, some.time[-1] - silence_s))
    return _cut(state, windowing, last=False, wait=False)


def flush(state: State, windowing: Windowing) -> tuple[Sequences, State]:
    """Sequences of all that waits, as at the end of a capture; more packets may come."""
    return _cut(state, windowing, last=True, wait=False)


def _joined(state: State, some: packets.Packets, scores: Float32[np.ndarray, "n Q"]) -> State:
    if not len(some.time):
        return state
    origin = float(some.time[0]) if math.isnan(state.origin) else state.origin
    return state._replace(held=windows.join(state.held, some, scores), origin=origin)


def _cut(state: State, windowing: Windowing, last: bool, wait: bool) -> tuple[Sequences, State]:
    origin = 0.0 if math.isnan(state.origin) else state.origin
    cut, held = windows.cut(state.held, windowing, origin, last)
    found, past = windows.sequences(state.past, cut, windowing, last and wait, wait)
    return found, state._replace(held=held, past=past)


class Reading:
    """One pass over a capture; ``report`` is complete when the last sequences have been taken."""

    def __init__(
        self,
        path: pathlib.Path,
        windowing: Windowing,
        part: tuple[float, float] = WHOLE,
    ):
        """Reads nothing yet; ``part`` is the share of the file to read, from and to."""
        self.path, self.windowing, self.part = path, windowing, part
        self.done = 0.0
        self.report = Report(0, 0, 0, {}, ())

    def __iter__(self) -> Iterator[Sequences]:
        """Sequences, each conversation's in order.

        Raises:
          DataError: the file is missing, unreadable or no capture.
        """
        warnings: list[str] = []
        skipped: collections.Counter[str] = collections.Counter()
        state, seen, told = begin(), 0, 0
        for some in self._packets(warnings, skipped):
            seen += len(some.time)
            out, state = step(state, some, self.windowing)
            told += len(out.x)
            yield out
        out, state = end(state, self.windowing)
        told += len(out.x)
        self.done = 1.0
        self.report = Report(seen, told, len(state.held.key), dict(skipped), tuple(warnings))
        yield out

    def _packets(
        self, warnings: list[str], skipped: collections.Counter[str]
    ) -> Iterator[packets.Packets]:
        low, high = self.part
        for frames in framing.read(self.path, warnings):
            if frames.place[0] >= high:
                return
            some = packets.decode(frames, skipped)
            self.done = float(frames.place[-1])
            if self.part != WHOLE:
                inside = (some.place >= low) & (some.place < high)
                some = packets.Packets(*(column[inside] for column in some))
            if len(some.time):
                yield some


def _scores(answers: latency.Answers, n: int) -> Float32[np.ndarray, "n Q"]:
    out = np.full((n, len(latency.SERVICES)), np.nan, np.float32)
    out[answers.row, answers.service] = latency.score(answers)
    return out


def spec(config: str, label_names: tuple[str, ...]) -> Spec:
    """The columns, classes and services of ``pcap_folder/CONFIG``; the first class is benign."""
    windowing = CONFIGS[config]
    horizon = windowing.size if windowing.unit == SECONDS else None
    return Spec(
        dataset=f"pcap_folder/{config}",
        columns=COLUMNS,
        label_names=label_names,
        services=tuple(Service(name, horizon, scale) for name, scale in latency.SERVICES),
        vocab={},
        benign=capture_files.BENIGN,
        window=windowing.length,
    )


def rows(found: Sequences, label: int, benign: int, group: int = -1) -> Table:
    """Sequences of one class as a table; only benign ones are rated: scores are their users'."""
    n = len(found.x)
    rated = np.isfinite(found.following) & (label == benign)
    return make_table(
        found.x,
        np.full(n, label),
        np.full(n, group),
        np.where(rated, found.following, 0.0),
        rated,
    )


def read(
    path: pathlib.Path, spec: Spec, needed: Collection[str]
) -> tuple[Table, Report, dict[str, np.ndarray]]:
    """All windows of one capture in order of time; the class is known if its file's name tells it.

    Returns:
      The rows, the report, and for each row when and between whom the window was.

    Raises:
      DataError: no capture, or one without a full window.
    """
    del needed  # a capture has every column
    config = spec.dataset.partition("/")[2]
    if not framing.is_capture(path):
        raise DataError(f"{path}: expected a name ending in {', '.join(framing.SUFFIXES)}.")
    reading = Reading(path, CONFIGS[config])
    name = capture_files.label_of(path)
    label = spec.label_names.index(name) if name in spec.label_names else -1
    benign = spec.label_names.index(spec.benign)
    parts = list(reading)
    table = [rows(part, label, benign) for part in parts]
    order = np.argsort(np.concatenate([part.last.start for part in parts]), kind="stable")
    if not len(order):
        warned = "".join(f"; {text}" for text in reading.report.warnings)
        raise DataError(
            f"{path}: has {reading.report.packets} packets, too few for one window{warned}."
        )
    joined = Table(*(np.concatenate(columns)[order] for columns in zip(*table, strict=True)))
    last = Windows(
        *(np.concatenate(columns)[order] for columns in zip(*(q.last for q in parts), strict=True))
    )
    labelled = len(order) if label >= 0 else 0
    return joined, reading.report._replace(labelled=labelled), identity(last)


_PROTOCOLS = {packets.TCP: "tcp", packets.UDP: "udp", packets.ICMP: "icmp", packets.IGMP: "igmp"}
_PROTOCOLS |= {packets.ICMP6: "icmp6", packets.ARP: "arp", packets.OTHER: "other"}


def identity(last: Windows) -> dict[str, np.ndarray]:
    """When each window was (ISO 8601, UTC) and whose; the protocol is that of its first packet."""
    rest = last.key == REST
    names = [_PROTOCOLS.get(code, str(code)) for code in last.protocol.tolist()]
    ports = last.server_port.tolist()
    protocol = [f"{name}/{port}" if port else name for name, port in zip(names, ports, strict=True)]
    return {
        "start": _iso(last.start),
        "end": _iso(last.end),
        "source": _hosts(last.client_high, last.client_low, rest),
        "destination": _hosts(last.server_high, last.server_low, rest),
        "protocol": np.where(rest, "several", np.array(protocol, object)).astype(str),
    }


def _iso(times: Float64[np.ndarray, " n"]) -> np.ndarray:
    stamps = (times * 1e6).round().astype(np.int64).astype("datetime64[us]")
    return np.char.add(np.datetime_as_string(stamps), "Z")


def _hosts(high: np.ndarray, low: np.ndarray, rest: Bool[np.ndarray, " n"]) -> np.ndarray:
    seen: dict[tuple[int, int], str] = {}
    out = []
    for key, several in zip(zip(high.tolist(), low.tolist(), strict=True), rest, strict=True):
        if several:
            out.append("several")
            continue
        if key not in seen:
            seen[key] = _host(*key)
        out.append(seen[key])
    return np.array(out)


def _host(high: int, low: int) -> str:
    if high == 2**64 - 1 and low < 2**48:
        return ":".join(f"{byte:02x}" for byte in low.to_bytes(6, "big"))
    address = ipaddress.IPv6Address(high << 64 | low)
    return str(address.ipv4_mapped or address)
