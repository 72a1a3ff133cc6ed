"""What the server fixes for a round of secure aggregation, and the frames that carry each step.

    frame = header (218) || body || signature (of the suite, or nothing where a step is not signed)

The signature is over the transcript hash of header and SHA-512 of the body, with the context
``qoejax/v1/secagg``. The header's ``announce`` is R, the digest of the plan, which names the
round's announcement; ``seq`` is the step. So a frame belongs to one run, round, plan, step and
sender.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from qoejax.wire import cbor, envelope, kem, sign, suites
from qoejax.wire.envelope import Header
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.keys import Identity
from qoejax.wire.secagg import graph
from qoejax.wire.secret import Secret
from qoejax.wire.suites import Suite

CONTEXT = b"qoejax/v1/secagg"
MASKED, SA_KEYS, SA_SHARES, SA_UNMASK = 4, 5, 6, 7
"""Message types of the header."""


class Step(NamedTuple):
    """One message: its place in the protocol and its type."""

    seq: int
    type: int


OPEN = Step(0, SA_KEYS)
KEYS = Step(1, SA_KEYS)
CIPHERTEXTS = Step(2, SA_KEYS)
SHARES = Step(3, SA_SHARES)
INPUT = Step(4, MASKED)
SURVIVORS = Step(5, SA_UNMASK)
CONFIRM = Step(6, SA_UNMASK)
UNMASK = Step(7, SA_UNMASK)


class Plan(NamedTuple):
    """The facts of one round that every party must agree on.

    Attributes:
        announce: digest [32] of the round's announcement.
        run: id [16] of the run.
        round: number of the round.
        first: round in which the members agreed on keys; ``round`` itself where they do so now.
        server: id [16] of the server.
        suite: suite of the run.
        base_model: digest [32] of the model that the announcement carries.
        tree_spec: digest [32] of the layout of an update.
        degree: neighbours of each member.
        threshold: shares that open a secret, and confirmations without which nobody goes on.
        least: survivors without which nobody helps to open a sum.
        length: words of an input.
        evidence: 1 where clients sign the survivor set, 0 where neighbours alone confirm it.
    """

    announce: bytes
    run: bytes
    round: int
    first: int
    server: bytes
    suite: int
    base_model: bytes
    tree_spec: bytes
    degree: int
    threshold: int
    least: int
    length: int
    evidence: int = 1


_SIZES = {"announce": 32, "run": 16, "server": 16, "base_model": 32, "tree_spec": 32}


def encode(plan: Plan) -> bytes:
    """Deterministic CBOR of the plan; FORMAT names a field that is wrong."""
    for field, size in _SIZES.items():
        value = getattr(plan, field)
        if not isinstance(value, bytes) or len(value) != size:
            raise EnvelopeError(Code.FORMAT, f"plan: {field} needs {size} bytes")
    for field in set(Plan._fields) - set(_SIZES):
        value = getattr(plan, field)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise EnvelopeError(Code.FORMAT, f"plan: {field} needs an unsigned integer")
    return cbor.encode(plan._asdict())


def decode(data: bytes) -> Plan:
    """Inverse of ``encode``; FORMAT for anything else."""
    fields = cbor.decode(data)
    if not isinstance(fields, dict) or set(fields) != set(Plan._fields):
        raise EnvelopeError(Code.FORMAT, "the plan's fields are not those of version 1")
    plan = Plan(**fields)
    encode(plan)
    return plan


@functools.lru_cache(maxsize=16)
def digest(plan: Plan) -> bytes:
    """R [32]: what every key, mask and signature of the round depends on."""
    return hashlib.sha256(b"qoejax/v1/secagg/plan\0" + encode(plan)).digest()


def check(plan: Plan, members: int) -> None:
    """POLICY for a plan under which a member's secrets could be opened twice, or never.

    With k + 1 holders of which each honest one releases a share of one secret only, two secrets of
    one member take 2 t shares: 2 t > k + 1 rules that out where no holder is corrupt, and
    ``bound`` says how much more t must be for those that are.
    """
    k, t = plan.degree, plan.threshold
    if not graph.valid(members, k):
        raise EnvelopeError(Code.POLICY, f"no graph of degree {k} on {members} members")
    if not (k + 1 < 2 * t and t <= k + 1):
        raise EnvelopeError(Code.POLICY, f"threshold {t}: expected {k // 2 + 1} to {k + 1}")
    if not max(2, t) <= plan.least <= members:
        raise EnvelopeError(
            Code.POLICY, f"least {plan.least}: expected {max(2, t)} to {members} survivors"
        )
    if not 1 <= plan.length < 2**28:
        raise EnvelopeError(Code.POLICY, f"length {plan.length}: expected 1 to {2**28 - 1} words")


def _header(plan: Plan, step: Step, sender: bytes, length: int) -> bytes:
    return envelope.pack(
        Header(
            type=step.type,
            suite=plan.suite,
            key_epoch=0,
            run=plan.run,
            round=plan.round,
            seq=step.seq,
            sender=sender,
            recipient=plan.server,
            base_model=plan.base_model,
            tree_spec=plan.tree_spec,
            announce=digest(plan),
            prev=bytes(32),
            n_samples=0,
            payload_len=length,
        )
    )


def _name(header: bytes, body: bytes) -> bytes:
    return envelope.transcript(header, b"", hashlib.sha512(body).digest())


def frame(plan: Plan, step: Step, sender: bytes, body: bytes) -> bytes:
    """An unsigned frame: for steps whose content another signature or a tag covers."""
    return _header(plan, step, sender, len(body)) + body


def signed(plan: Plan, step: Step, identity: Identity, body: bytes) -> bytes:
    """A frame with the sender's signature."""
    header = _header(plan, step, identity.id, len(body))
    return b"".join((header, body, identity.sign(_name(header, body), CONTEXT)))


Signing = Callable[[Identity, bytes, bytes], Callable[[], tuple[bytes, float]]]
"""``begin(identity, message, context) -> wait``, ``wait() -> (signature, CPU seconds)``; the second
raises EnvelopeError where there is none."""


def signing(
    begin: Signing, plan: Plan, step: Step, identity: Identity, body: bytes
) -> Callable[[], tuple[bytes, float]]:
    """Like ``signed``, but others sign meanwhile: ``wait() -> (frame, their CPU seconds)``."""
    header = _header(plan, step, identity.id, len(body))
    wait = begin(identity, _name(header, body), CONTEXT)

    def frame() -> tuple[bytes, float]:
        signature, seconds = wait()
        return b"".join((header, body, signature)), seconds

    return frame


def suite_of(number: int) -> Suite:
    """The suite of a run that masks; SUITE for one that cannot: it needs a KEM."""
    chosen = suites.suite(number, unsafe=True)
    if not chosen.sealed:
        raise EnvelopeError(Code.SUITE, "the plaintext suite has no keys to make masks of")
    return chosen


def aead(plan: Plan, key: Secret) -> Any:
    """The suite's cipher under a key [32]."""
    return kem.AEADS[suite_of(plan.suite).aead_id](key.expose())


def unsealed(data: bytes, suite: int) -> bytes:
    """Body of a signed frame before anything is checked; SIZE if there is no room for one."""
    size = sign.SIZES[suite_of(suite).scheme][1]
    if len(data) < envelope.HEADER_SIZE + size:
        raise EnvelopeError(Code.SIZE, f"{len(data)} bytes hold no signed frame")
    return data[envelope.HEADER_SIZE : len(data) - size]


def read(plan: Plan, step: Step, sender: bytes, data: bytes) -> bytes:
    """Body of an unsigned frame; SIZE, or ROUND unless it is of this plan, step and sender."""
    header = _header(plan, step, sender, max(0, len(data) - envelope.HEADER_SIZE))
    if data[: envelope.HEADER_SIZE] != header:
        raise _foreign(step, sender, data)
    return data[envelope.HEADER_SIZE :]


def verified(
    plan: Plan, step: Step, sender: bytes, data: bytes, public: bytes, verifier: str
) -> bytes:
    """Body of a signed frame; SIZE, ROUND or SIGNATURE says what is wrong."""
    scheme = suite_of(plan.suite).scheme
    end = len(data) - sign.SIZES[scheme][1]
    header = _header(plan, step, sender, max(0, end - envelope.HEADER_SIZE))
    if data[: envelope.HEADER_SIZE] != header:
        raise _foreign(step, sender, data)
    body = data[envelope.HEADER_SIZE : end]
    good = sign.verifier(verifier, scheme)(public, _name(header, body), data[end:], CONTEXT)
    if not good:
        raise EnvelopeError(
            Code.SIGNATURE, f"client {sender.hex()}: step {step.seq} is not signed by it"
        )
    return body


def _foreign(step: Step, sender: bytes, data: bytes) -> EnvelopeError:
    """Why a header is not the expected one: its form, or what it says."""
    try:
        envelope.unpack(data)
    except EnvelopeError as error:
        return error
    return EnvelopeError(
        Code.ROUND, f"client {sender.hex()}: not step {step.seq} of this plan, or of another length"
    )
