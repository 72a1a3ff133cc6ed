"""Verdicts on a capture as it comes: a growing file, standard input or a network interface.

    python -m experiments.detect --artefact=runs/mqtt/artefact --input=live.pcap
    tcpdump -U -w - | python -m experiments.detect --artefact=runs/mqtt/artefact --input=-
    python -m experiments.detect --workdir=runs/mqtt --interface=eth0 --seconds=60

Prints a line of JSON a window: times (UTC), hosts, class, probability, MOS forecast with its 80 %
interval where the model has services, recommended action, and how late the verdict is. Ctrl-C ends
it: what waits is judged, and the last line is a summary.
"""

import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import cli

_ARTEFACT = flags.DEFINE_string("artefact", None, "Folder written by experiments.export.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run, instead.")
_INPUT = flags.DEFINE_string(
    "input", None, "A capture (.pcap or .pcapng), or - for standard input."
)
_INTERFACE = flags.DEFINE_string("interface", None, "A network interface, instead (Linux).")
_STOP_AT_END = flags.DEFINE_bool("stop_at_end", False, "Read a file to its end; do not follow it.")
_SECONDS = flags.DEFINE_float("seconds", None, "Stop after so long.", lower_bound=0.0)
_IDLE = flags.DEFINE_float(
    "idle", None,
    "Seconds without packets after which what waits for its window to fill is judged; 0 is never. "
    "Default: the length of a window of time, or 30 in windows of packets; 0 with --stop_at_end.",
    lower_bound=0.0,
)  # fmt: skip
_DAMAGE = flags.DEFINE_float("damage", 5.0, "Cost of an admitted attack, in MOS points.")


def main() -> dict[str, Any]:
    """Says verdicts and returns their summary."""
    from qoejax.qoe.decide import Costs
    from qoejax.run import cache, detect
    from qoejax.run.errors import RunError

    for pair in ((_ARTEFACT, _WORKDIR), (_INPUT, _INTERFACE)):
        if (pair[0].value is None) == (pair[1].value is None):
            raise RunError(f"expected either --{pair[0].name} or --{pair[1].name}")
    cache.keep_compiled()
    costs = Costs(damage=_DAMAGE.value)
    if _ARTEFACT.value is not None:
        judge = detect.of_artefact(pathlib.Path(_ARTEFACT.value), costs)
    else:
        judge = detect.of_run(pathlib.Path(str(_WORKDIR.value)), costs)
    judge.warm()
    stopped = _stopped()
    idle = detect.idle_s(judge.windowing) if _IDLE.value is None else _IDLE.value
    if _IDLE.value is None and _STOP_AT_END.value:
        idle = 0.0
    return detect.detect(judge, _tap(stopped), _say, idle, stopped)


def _tap(stopped: Callable[[], bool]) -> Any:
    from qoejax.run import taps

    if _INTERFACE.value is not None:
        return taps.interface(_INTERFACE.value, stopped)
    if _INPUT.value == "-":
        return taps.descriptor(sys.stdin.fileno(), "standard input", stopped)
    return taps.file(pathlib.Path(str(_INPUT.value)), not _STOP_AT_END.value, stopped)


def _stopped() -> Callable[[], bool]:
    """Whether the time is up, or an interrupt has asked to stop; a second one stops at once."""
    asked: list[int] = []
    until = float("inf") if _SECONDS.value is None else time.monotonic() + _SECONDS.value

    def ask(number: int, frame: Any) -> None:
        del frame
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return lambda: bool(asked) or time.monotonic() >= until


def _say(verdicts: list[dict[str, Any]]) -> None:
    from qoejax.run import files

    print("\n".join(map(files.dumps, verdicts)), flush=True)


if __name__ == "__main__":
    cli.run(main, lambda result: result.get("error", ""))
