"""Coverage-guided fuzzing of the capture reader (`make fuzz`); only DataError may escape."""

import contextlib
import pathlib
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["qoejax.data"]):
    from qoejax.data import capture
    from qoejax.data.errors import DataError

from tests.data import pcaps
from tests.data.test_framing import pcapng

FOLDER = pathlib.Path(tempfile.mkdtemp())


def one(data: bytes) -> None:
    """Reads any bytes as a capture, by both kinds of windows."""
    path = FOLDER / "any.pcap"
    path.write_bytes(data)
    for config in capture.CONFIGS:
        with contextlib.suppress(DataError):
            capture.read(path, capture.spec(config, ("benign",)), ())


def main() -> None:
    """Starts from a sound capture of each form."""
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    packets = pcaps.benign(0, sessions=1) + pcaps.scan(0, hosts=3)
    (corpus / "pcap").write_bytes(pcaps.pcap(packets))
    (corpus / "pcapng").write_bytes(pcapng(packets))
    atheris.Setup([*sys.argv, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
