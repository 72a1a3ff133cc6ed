"""SecAgg+ of Flower 1.41: the client's four stages as its ``secaggplus_mod`` calls them.

The server is left out and messages are handed over as they are, so this is less than a client of
Flower pays. The stages are private functions of that one version.
"""

import time
from typing import Any, NamedTuple

import numpy as np
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
    _unmask,
)
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

CLIP, LEVELS, RANGE = 8.0, 2**22, 2**32
"""Defaults of Flower's SecAggPlusWorkflow: clipping, quantisation and modulus."""


class Cost(NamedTuple):
    """CPU seconds of one client by stage, of its quantisation (part of ``mask``), and bytes up."""

    setup: float
    share: float
    mask: float
    unmask: float
    quantise: float
    up: int

    @property
    def client(self) -> float:
        """Seconds of the protocol without quantisation, which our clients do on the device."""
        return self.setup + self.share + self.mask + self.unmask - self.quantise


def neighbourhood(degree: int, threshold: int, length: int, seed: int) -> list[Cost]:
    """A client and its ``degree`` neighbours, all of whom stay; what each of them spends.

    Every one has all others for neighbours. Stops if the masked vectors do not add up.
    """
    members = range(1, degree + 2)
    states = {i: SecAggPlusState(nid=i) for i in members}
    settings = {
        Key.SAMPLE_NUMBER: degree + 1, Key.SHARE_NUMBER: degree + 1, Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: CLIP, Key.TARGET_RANGE: LEVELS, Key.MOD_RANGE: RANGE,
        Key.MAX_WEIGHT: 1.0,
    }  # fmt: skip
    spent: dict[int, list[float]] = {i: [] for i in members}

    def stage(i: int, step: Any, *arguments: Any) -> dict[str, Any]:
        start = time.process_time()
        out = step(states[i], *arguments)
        spent[i].append(time.process_time() - start)
        return out

    keys = {i: stage(i, _setup, dict(settings)) for i in members}
    public = {str(i): [k[Key.PUBLIC_KEY_1], k[Key.PUBLIC_KEY_2]] for i, k in keys.items()}
    shared = {i: stage(i, _share_keys, dict(public)) for i in members}
    rows = np.random.default_rng(seed).uniform(-1, 1, (degree + 1, length)).astype(np.float32)
    masked = {}
    for i in members:
        boxes = {
            j: box
            for j, sent in shared.items()
            for to, box in zip(sent[Key.DESTINATION_LIST], sent[Key.CIPHERTEXT_LIST], strict=True)
            if to == i
        }
        told = {Key.CIPHERTEXT_LIST: list(boxes.values()), Key.SOURCE_LIST: list(boxes)}
        model = ndarrays_to_parameters([rows[i - 1]])
        masked[i] = stage(i, _collect_masked_vectors, told, 1, model)[Key.MASKED_PARAMETERS]
    alive = {Key.ACTIVE_NODE_ID_LIST: list(members), Key.DEAD_NODE_ID_LIST: []}
    given = {i: stage(i, _unmask, dict(alive)) for i in members}
    _check(states, masked, rows)
    start = time.process_time()
    quantize([rows[0]], CLIP, LEVELS)
    quantise = time.process_time() - start
    up = {
        i: sum(map(_size, (keys[i], shared[i], given[i]))) + _size({"": masked[i]}) for i in members
    }
    return [
        Cost(setup, share, mask, unmask, quantise, up[i])
        for i, (setup, share, mask, unmask) in spent.items()
    ]


def _size(sent: dict[str, list[Any]]) -> int:
    """Bytes of a message's values: names left out, eight for a number."""
    values = [v for value in sent.values() for v in (value if isinstance(value, list) else [value])]
    return sum(len(v) if isinstance(v, bytes) else 8 for v in values)


def _check(states: dict[int, Any], masked: dict[int, list[bytes]], rows: np.ndarray) -> None:
    """The masked vectors less everybody's own mask are the quantised rows, up to its rounding."""
    total = np.zeros(rows.shape[1], np.int64)
    for i, (_, vector) in masked.items():
        own = pseudo_rand_gen(states[i].rd_seed, RANGE, [(1,), rows.shape[1:]])[1]
        total += bytes_to_ndarray(vector) - own
    expected = (rows.sum(0, dtype=np.float64) + CLIP * len(rows)) * LEVELS / (2 * CLIP)
    if not np.allclose(total % RANGE, expected, rtol=0, atol=len(rows)):
        raise RuntimeError("Flower's masked vectors do not add up")
