"""Frames of secure aggregation, given any bytes: refused by code, and nothing signed is forged.

``python -m tests.fuzz.secagg_target`` runs for long under atheris (the extra ``fuzz``; see ``make
fuzz``); the default tests alter frames with hypothesis instead.
"""

import pathlib

from qoejax.wire import cbor
from qoejax.wire.secagg import forms, plan
from tests.fuzz import harness
from tests.wire.secagg.test_malice import accepted, receivers


def main() -> None:
    """Fuzzes from a genuine frame of every step; the first byte says who gets the rest."""
    steps = sorted(receivers())

    def one(folder: pathlib.Path, data: bytes) -> None:
        del folder
        step, text = steps[data[0] % len(steps)] if data else steps[0], data[1:]
        known = receivers()[step]
        assert not (accepted(step, text) and known.signed and text != known.genuine)

    seeds = (bytes([i]) + receivers()[step].genuine for i, step in enumerate(steps))
    harness.run(seeds, (cbor, forms, plan), one)


if __name__ == "__main__":
    main()
