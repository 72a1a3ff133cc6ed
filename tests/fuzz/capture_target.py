"""The reader of captures, given any bytes: a documented error, or rows that add up.

``python -m tests.fuzz.capture_target`` runs for long under atheris (the extra ``fuzz``; see ``make
fuzz``); the default tests damage captures with hypothesis instead.
"""

import pathlib

import numpy as np

from qoejax.data import capture, framing, latency, packet_features, packet_windows, packets
from qoejax.data.errors import DataError
from tests.data import pcaps
from tests.data.test_framing import pcapng
from tests.fuzz import harness


def read_all(path: pathlib.Path) -> str:
    """Reads a file as every config does; says what came of it."""
    said = "refused"
    for config in capture.CONFIGS:
        try:
            table, report, identity = capture.read(path, capture.spec(config, ("benign",)), ())
        except DataError as e:
            refusal = str(e)
        else:
            refusal = ""
        if refusal:
            assert str(path) in refusal
            continue
        assert np.isfinite(table.x).all()
        assert np.isfinite(table.mos).all()
        assert report.windows == len(table.label) == len(identity["start"]) > 0
        said = "read"
    return said


def main() -> None:
    """Fuzzes from a sound capture of each form."""
    some = pcaps.benign(0, sessions=1) + pcaps.scan(0, hosts=3)

    def one(folder: pathlib.Path, data: bytes) -> None:
        path = folder / "any.pcap"
        path.write_bytes(data)
        read_all(path)

    modules = (framing, packets, latency, packet_windows, packet_features, capture)
    harness.run((pcaps.pcap(some), pcapng(some)), modules, one)


if __name__ == "__main__":
    main()
