"""Reads the vector files of the PyPI package cryptography-vectors."""

import json
import pathlib
from typing import Any

import cryptography_vectors

_ROOT = pathlib.Path(cryptography_vectors.__file__).parent


def rsp(path: str, count: int) -> list[dict[str, bytes]]:
    """The first entries of a ``name = hex`` file."""
    out: list[dict[str, bytes]] = []
    for line in (_ROOT / path).read_text().splitlines():
        name, _, value = line.partition(" = ")
        if name == "count":
            if len(out) == count:
                break
            out.append({})
        elif name in ("mlen", "smlen"):
            out[-1][name] = int(value).to_bytes(4, "big")
        elif value or line.endswith(" ="):
            out[-1][name.removesuffix(" =")] = bytes.fromhex(value)
    return out


def hpke(name: str) -> list[dict[str, Any]]:
    """Entries of an HPKE vector file."""
    return json.loads((_ROOT / "HPKE" / name).read_text())
