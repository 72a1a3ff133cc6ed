"""Published vectors that need chosen randomness, and golden envelopes made again to the byte."""

import json
import pathlib

import pytest

from tests.golden import wire_regenerate
from tests.wire import shim, vectors

pytestmark = pytest.mark.skipif(not shim.available(), reason="needs Linux and a C compiler")


def test_pqcrypto_makes_published_keys_ciphertexts_and_signatures(tmp_path):
    count = 12
    found = json.loads(shim.run("tests.wire.shim_vectors", tmp_path, str(count)))
    assert found["ml-kem-768"] == found["ml-kem-1024"] == count
    for bits in ("44", "65", "87"):
        entries = vectors.rsp(f"asymmetric/MLDSA/kat_MLDSA_{bits}_det_pure.rsp", count)
        assert found[f"ml-dsa-{bits}"] == sum(len(e["ctx"]) <= 253 for e in entries) > 8
    assert found["slh-dsa-128f"] == found["slh-dsa-128s"] == 1
    # The library's signer gives up; ours draws again and the signature verifies elsewhere.
    assert found["exhausted"] == [0, 2, 1]


def test_golden_messages_are_made_again_to_the_byte(tmp_path):
    made = json.loads(shim.run("tests.golden.wire_regenerate", tmp_path, "--print"))
    stored = json.loads(pathlib.Path(wire_regenerate.PATH).read_text())
    assert made.keys() == stored.keys()
    for name in stored:
        assert made[name] == stored[name], (
            f"{name} changed: if the format did not change, this is a bug; if it did, say so in "
            "docs/wire.md and run python -m tests.golden.wire_regenerate"
        )
