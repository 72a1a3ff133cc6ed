"""The tasks that cost time, and the process that runs them for a pool.

``main`` reads pickled jobs from standard input and writes pickled answers to standard output,
until its input ends. Its first job is the set-up, so secrets reach it through a pipe between
parent and child, never through arguments, environment or files.
"""

import os
import pickle
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from qoejax.wire import closing, codec, envelope, keys, server, session
from qoejax.wire.announce import Announce
from qoejax.wire.clock import Clock
from qoejax.wire.envelope import Header, Opened, Sealed
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret


class Setup(NamedTuple):
    """What a worker knows from the start; ``identities`` sign for the simulated clients."""

    identities: tuple[keys.Identity, ...]
    spec: codec.TreeSpec
    verifier: str
    unsafe: bool
    provider: str = "pqcrypto"


class Refused(NamedTuple):
    """A task's EnvelopeError as a value, with the CPU seconds that went into it."""

    code: Code
    message: str
    seconds: dict[str, float]

    def error(self) -> EnvelopeError:
        """The error again."""
        return EnvelopeError(self.code, self.message)


Exposed = tuple[bytes, bytes] | None
"""An envelope's exports (reply, session), readable: no ``Secret`` travels between processes."""


def _expose(exports: envelope.Exports | None) -> Exposed:
    return None if exports is None else (exports.reply.expose(), exports.session.expose())


def conceal(exposed: Exposed) -> envelope.Exports | None:
    """The exports again."""
    return None if exposed is None else envelope.Exports(*map(Secret, exposed))


def seal(
    setup: Setup, client: int, header: Header, payload: bytes, round_key: bytes
) -> tuple[Sealed, Exposed, dict[str, float]] | Refused:
    """Signs and seals one client's payload, or its HELLO."""
    clock = Clock()
    try:
        with clock("seal"):
            sealed = envelope.seal_update(
                header,
                payload,
                round_key,
                setup.identities[client].sign,
                unsafe=setup.unsafe,
                clock=clock,
                provider=setup.provider,
            )
    except EnvelopeError as error:
        return Refused(error.code, error.args[0], clock.seconds)
    return sealed._replace(exports=None), _expose(sealed.exports), clock.seconds


def seal_in_session(
    setup: Setup, header: Header, payload: bytes, key: bytes
) -> tuple[Sealed, Exposed, dict[str, float]] | Refused:
    """Seals one client's payload under its message key."""
    del setup
    clock = Clock()
    try:
        with clock("seal"):
            sealed = session.seal(header, payload, Secret(key), clock=clock)
    except EnvelopeError as error:
        return Refused(error.code, error.args[0], clock.seconds)
    return sealed, None, clock.seconds


def close(setup: Setup, client: int, header: Header, statement: bytes) -> Sealed | Refused:
    """Signs one client's CLOSE."""
    try:
        return closing.seal(header, statement, setup.identities[client].sign)
    except EnvelopeError as error:
        return Refused(error.code, error.args[0], {})


def sign(
    setup: Setup, client: int, message: bytes, context: bytes
) -> tuple[bytes, float] | Refused:
    """One client's signature, and the CPU seconds that went into it."""
    clock = Clock()
    try:
        with clock("sign"):
            signature = setup.identities[client].sign(message, context)
    except EnvelopeError as error:
        return Refused(error.code, error.args[0], clock.seconds)
    return signature, clock.seconds["sign"]


def open_(
    setup: Setup, data: bytes, announce: Announce, secret: bytes, sender_key: bytes
) -> tuple[Opened, Exposed, dict[str, float]] | Refused:
    """Opens one envelope: ``server.inspect``."""
    clock = Clock()
    try:
        with clock("open"):
            opened = server.inspect(
                announce,
                setup.spec,
                data,
                Secret(secret),
                sender_key,
                verifier=setup.verifier,
                unsafe=setup.unsafe,
                clock=clock,
                provider=setup.provider,
            )
    except EnvelopeError as error:
        return Refused(error.code, error.args[0], clock.seconds)
    return opened._replace(exports=None), _expose(opened.exports), clock.seconds


TASKS: dict[str, Callable[..., Any]] = {
    "seal": seal,
    "seal_in_session": seal_in_session,
    "close": close,
    "sign": sign,
    "open": open_,
}


def expose(setup: Setup) -> dict[str, Any]:
    """A set-up in a form that can be pickled: the secrets are readable in it."""
    identities = [(i.provider, i.public, i.secret.expose(), i.scheme) for i in setup.identities]
    return setup._asdict() | {"identities": identities}


def _conceal(exposed: dict[str, Any]) -> Setup:
    identities = tuple(
        keys.Identity(name, public, Secret(secret), scheme)
        for name, public, secret, scheme in exposed["identities"]
    )
    return Setup(**(exposed | {"identities": identities}))


_LENGTH = struct.Struct(">Q")


def send(stream: IO[bytes], value: Any) -> None:
    """Writes one length-prefixed pickle."""
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Reads what ``send`` wrote; EOFError where the other end is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def main() -> None:
    """Serves jobs ``(task, arguments)`` until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # A stray print must not end up among the answers.
    os.dup2(2, 1)
    try:
        setup = _conceal(receive(jobs))
        send(answers, ("ready", None))
        while True:
            name, arguments = receive(jobs)
            try:
                answer = ("done", TASKS[name](setup, *arguments))
            except Exception:
                answer = ("failed", traceback.format_exc())
            send(answers, answer)
    except (EOFError, BrokenPipeError):
        return
