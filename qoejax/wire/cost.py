"""What the wire costs a client of a named class of device: operations, seconds and bytes. Pure.

The operations of a round follow from the protocol (docs/wire.md, docs/secagg.md); the speed of each
is a figure that is *published* by the source named, *measured* by us, or *assumed*. Python's own
time is left out: a device of the smaller classes would not run Python. Links are in
``qoejax.fed.devices``; ``experiments.bench.costs`` joins the two.
"""

import math
from typing import NamedTuple

from qoejax.wire import envelope, kem, sign
from qoejax.wire.keys import ID_SIZE
from qoejax.wire.secagg import forms, local

ANNOUNCE_SIZE = 5087
"""Bytes of an announcement beside the model, in suite 0x0001 and without a log's checkpoint."""


class Speed(NamedTuple):
    """Seconds of one operation, and of one byte. X-Wing is ML-KEM-768 and X25519 together.

    ``stream`` is AES-256's keystream alone, ``aead`` AES-256-GCM, ``hash`` SHA-512.
    """

    keygen: float
    encaps: float
    decaps: float
    sign: float
    verify: float
    hash: float
    aead: float
    stream: float
    source: str


_M4_HZ = 168e6
_M4_X25519 = 548_873

_SERVER = Speed(
    keygen=120e-6, encaps=170e-6, decaps=200e-6, sign=500e-6, verify=160e-6,
    hash=0.8e-9, aead=0.15e-9, stream=0.07e-9,
    source="measured: openssl provider, one x86-64 core with vector AES (medians of parts_ms of "
    "experiments.bench.wire, Python included; keygen and stream alone)",
)  # fmt: skip

SPEEDS: dict[str, Speed] = {
    "microcontroller": Speed(
        keygen=(763_979 + _M4_X25519) / _M4_HZ,
        encaps=(923_856 + 2 * _M4_X25519) / _M4_HZ,
        decaps=(862_176 + _M4_X25519) / _M4_HZ,
        sign=6_480_747 / _M4_HZ,
        verify=1_913_130 / _M4_HZ,
        hash=90 / _M4_HZ,
        aead=100 / _M4_HZ,
        stream=50 / _M4_HZ,
        source="published: cycles on a Cortex-M4 of pqm4 (Kyber-768 and Dilithium-3 of round 3, "
        "implementation m4, means; ML-KEM-768 and ML-DSA-65 differ little) and of "
        "Emill/X25519-Cortex-M4; assumed: 168 MHz, cycles a byte of SHA-512 (90), AES-256 (50) "
        "and GHASH (50)",
    ),
    "gateway": Speed(
        keygen=6 * _SERVER.keygen,
        encaps=6 * _SERVER.encaps,
        decaps=6 * _SERVER.decaps,
        sign=6 * _SERVER.sign,
        verify=6 * _SERVER.verify,
        hash=5e-9,
        aead=16e-9,
        stream=14e-9,
        source="assumed: six times the server's seconds for a Cortex-A72 at 1.5 GHz, and 70 MB/s "
        "of AES-256 because the Raspberry Pi 4 has no AES instructions (published: sbc-bench)",
    ),
    "server": _SERVER,
}
"""By the names of ``qoejax.fed.devices.DEVICES``."""


class Work(NamedTuple):
    """What a client does in one round: operations, bytes through each primitive, bytes sent."""

    keygen: float = 0
    encaps: float = 0
    decaps: float = 0
    sign: float = 0
    verify: float = 0
    hash: float = 0
    aead: float = 0
    stream: float = 0
    up: float = 0
    down: float = 0


def update(payload: int, model: int) -> Work:
    """A signed update of ``payload`` bytes in answer to an announced model, suite 0x0001."""
    return Work(
        encaps=1, sign=1, verify=1,
        hash=payload + 2 * model,  # the announcement's model is hashed for signature and digest
        aead=payload + sign.SIGNATURE_SIZE,
        up=envelope.update_size(envelope.suite(envelope.DEFAULT, False), payload),
        down=ANNOUNCE_SIZE + model,
    )  # fmt: skip


def in_session(payload: int, model: int, rounds: int = 64) -> Work:
    """An update in a session that one HELLO in ``rounds`` rounds begins."""
    hello = update(0, 0)
    return Work(
        encaps=1 / rounds, sign=1 / rounds, verify=1,
        hash=payload + 2 * model, aead=payload,
        up=envelope.HEADER_SIZE + 16 + payload + hello.up / rounds,
        down=ANNOUNCE_SIZE + model,
    )  # fmt: skip


def masked(words: int, model: int, *, members: int, degree: int, fresh: bool) -> Work:
    """A masked input of ``words`` in a first round of an epoch (``fresh``) or a later one.

    Everybody stays and the survivor set is signed. Shamir's sharing is left out, as are HKDF and
    the boxes: less than a signature together.
    """
    half = degree // 2
    return Work(
        keygen=1 if fresh else 0,
        encaps=half if fresh else 0,
        decaps=half if fresh else 0,
        sign=4 if fresh else 2,
        # Announcement, OPEN, SURVIVORS; KEYS of half the neighbours, ciphertexts of the others.
        verify=3 + (degree if fresh else 0),
        hash=4 * words + 2 * model,
        stream=(degree + 1) * 4 * words,
        up=local.upload(degree, words, fresh=fresh),
        down=ANNOUNCE_SIZE + model + download(members, degree, fresh=fresh),
    )


_PLAN = 250
"""Bytes of a plan, as CBOR, up to its small numbers."""


def download(members: int, degree: int, *, fresh: bool) -> int:
    """Bytes that a member receives in a round beside the announcement, with all there."""
    front, signature = envelope.HEADER_SIZE, sign.SIGNATURE_SIZE
    bits = -(-members // 8)
    opening = front + _PLAN + signature
    boxes = degree * (forms.BOX_SIZE + 2 * forms.COMMIT_SIZE + ID_SIZE) + bits
    survivors = front + 2 * bits + signature
    total = opening + boxes + survivors + degree * (ID_SIZE + forms.TAG_SIZE)
    if fresh:
        half = degree // 2
        listed = half * (ID_SIZE + forms.DIGEST_SIZE)
        total += half * (front + kem.PUBLIC_SIZE + signature)
        total += members * (ID_SIZE + forms.DIGEST_SIZE)
        total += half * (front + forms.DIGEST_SIZE + listed + signature + kem.ENC_SIZE)
    return total


def seconds(work: Work, speed: Speed) -> float:
    """Seconds of a client's cryptography in one round on one core of a device."""
    spent = zip(work[:8], speed[:8], strict=True)  # the same primitives, in the same order
    return math.fsum(count * each for count, each in spent)
