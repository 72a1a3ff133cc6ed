"""Sums under CKKS with TenSEAL: parameters as NVIDIA FLARE's defaults, for additions only.

All clients hold one secret key, the server the public context: what secure aggregation hides from
the server, this hides too, as long as no client shows it the key.
"""

import time
from typing import NamedTuple

import numpy as np
import tenseal

DEGREE, MODULI, SCALE = 8192, (60, 40, 40), 2.0**40
SLOTS = DEGREE // 2


class Cost(NamedTuple):
    """CPU seconds and bytes of one client's part.

    ``encrypt`` and ``decrypt`` with serialisation, ``server`` for one client, ``size`` of a vector.
    """

    encrypt: float
    decrypt: float
    server: float
    size: int


def prepare():
    """The clients' context, and the server's without the secret key."""
    ours = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(MODULI))
    ours.global_scale = SCALE
    return ours, tenseal.context_from(ours.serialize(save_secret_key=False))


def sum_of_two(contexts, length: int, seed: int) -> Cost:
    """Two clients' vectors [length] through the server and back; stops if the sum is not theirs."""
    ours, theirs = contexts
    rows = np.random.default_rng(seed).uniform(-1, 1, (2, length))
    marks, sent = [time.process_time()], []
    for row in rows:
        parts = np.split(row, range(SLOTS, length, SLOTS))  # a ciphertext each
        sent.append([tenseal.ckks_vector(ours, part).serialize() for part in parts])
        marks.append(time.process_time())
    vectors = [[tenseal.ckks_vector_from(theirs, data) for data in each] for each in sent]
    answer = [(a + b).serialize() for a, b in zip(*vectors, strict=True)]
    marks.append(time.process_time())
    total = [tenseal.ckks_vector_from(ours, data).decrypt() for data in answer]
    marks.append(time.process_time())
    if not np.allclose(np.concatenate(total), rows.sum(0), atol=1e-4):
        raise RuntimeError("the decrypted sum is not the sum")
    _, encrypt, both, decrypt = np.diff(marks).tolist()
    return Cost(encrypt, decrypt, both / 2, sum(map(len, sent[1])))
