"""Opening the wire of a run: an exchange or a session of masked sums, and their log."""

import contextlib
import logging
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from qoejax.run import build, exchange, network, parties, sums, transparency, wired
from qoejax.run.enrol import PASSPHRASE
from qoejax.run.errors import RunError
from qoejax.wire import kem, keyfile, keys, sign, suites
from qoejax.wire.exchange import Exchange
from qoejax.wire.host import Host
from qoejax.wire.kem import SelfTestError
from qoejax.wire.keyfile import KeyFileError
from qoejax.wire.log import records
from qoejax.wire.log.errors import LogError
from qoejax.wire.members import Members
from qoejax.wire.pool import WorkerError

LOG = logging.getLogger("qoejax")


class Wire(NamedTuple):
    """An exchange, or a session of masked sums, and the log of what happens in it."""

    exchange: Exchange | sums.Session | network.Remote
    ledger: transparency.Ledger


@contextlib.contextmanager
def opened(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    message: Any,
    count: np.ndarray,
    gate: network.Gate | None = None,
) -> Iterator[Wire | None]:
    """The wire while a run lasts; None where nothing is exchanged.

    Args:
      config: Of the run.
      workdir: Its folder, which gets keys and log.
      message: What one client sends, a tree of that layout.
      count: Rows of each client.
      gate: Where clients that are other processes come in; None simulates them.

    Raises:
      RunError: keys, log, workers or self-tests that fail; the sentence says which.
    """
    c = config.exchange
    if c.mode == "none":
        yield None
        return
    with _wire_errors(), _open_ledger(config, workdir) as ledger:
        if gate is not None:
            yield Wire(_open_remote(config, workdir, message, len(count), gate), ledger)
            return
        who = parties.find(c, len(count), workdir / "keys", ledger.known, _passphrase(c))
        if c.mode in exchange.MASKED:
            with contextlib.closing(exchange.session(config, message, count, who)) as masking:
                yield Wire(masking, ledger)
            return
        with contextlib.closing(_open_exchange(config, who, message)) as made:
            yield Wire(made, ledger)


def conclude(wire: Wire | None) -> None:
    """After the last round: clients in sessions sign for what they sent, and the log has it.

    Raises:
      RunError: a worker died, or a witness has seen another history.
    """
    if wire is None or not isinstance(wire.exchange, Exchange):
        return
    with _wire_errors():
        slots, refused = wire.exchange.close_sessions()
        if slots:
            wire.ledger.record([records.closing(slots[i]) for i in sorted(slots)])
    for error in refused.values():
        LOG.warning("nobody signed for the last updates of a session: %s", error)


def close_log(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, params: str, rounds: int
) -> dict[str, Any]:
    """Ends the log with the digest of the model that is saved; its head, for the manifest."""
    with _wire_errors(), _open_ledger(config, workdir) as ledger:
        ledger.finish(bytes.fromhex(params), rounds)
        head = ledger.head
    return {} if head is None else head._asdict() | {"root": head.root.hex()}


@contextlib.contextmanager
def _wire_errors() -> Iterator[None]:
    try:
        yield
    except (KeyFileError, SelfTestError, WorkerError, LogError) as e:
        raise RunError(f"the wire: {e}") from e


def _open_ledger(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> transparency.Ledger:
    c = config.exchange
    path = pathlib.Path(c.log_key) if c.log_key else workdir / "keys" / "log.key"
    secret = _passphrase(c)
    key = transparency.cosigner(path, c.signer, secret, plain=secret is None)
    trusted = transparency.with_log(c.witnesses, key.verifier)
    digest = transparency.config_digest(build.plain_config(config))
    return transparency.Ledger(workdir / "log", key, trusted, digest)


def _open_exchange(config: ml_collections.ConfigDict, who: Members, message: Any) -> Exchange:
    c = config.exchange
    chosen = suites.suite(c.suite, c.unsafe)
    if chosen.status != "standard":
        LOG.warning("suite %#06x (%s) is %s: docs/wire.md", chosen.id, chosen.name, chosen.status)
    return Exchange(
        clients=len(who.clients), who=who, signer=c.signer, kem_provider=c.kem_provider,
        spec=wired.tree_spec(message), workers=c.workers, suite=c.suite,
        session=c.session, confidential=c.confidential, unsafe=c.unsafe, max_norm=_max_norm(config),
    )  # fmt: skip


def self_test(config: ml_collections.ConfigDict) -> None:
    """The run's primitives against known answers, as an ``Exchange`` does when it starts.

    Raises:
      RunError: one gives wrong answers on this machine.
    """
    c = config.exchange
    chosen = suites.suite(c.suite, c.unsafe)
    with _wire_errors():
        sign.self_test(c.signer, chosen.scheme)
        if chosen.sealed:
            kem.self_test(chosen.kem, suites.kem_provider(chosen, c.kem_provider))


def identity(config: ml_collections.ConfigDict, path: pathlib.Path) -> keys.Identity:
    """The one key of a file, for the run's suite; a new one, kept there, if the file is missing.

    Raises:
      RunError: the file cannot be used; names it.
    """
    c, secret = config.exchange, _passphrase(config.exchange)
    with _wire_errors():
        (one,) = keyfile.obtain(
            path, c.signer, 1, secret, plain=secret is None,
            scheme=suites.suite(c.suite, c.unsafe).scheme,
        )  # fmt: skip
    return one


def _open_remote(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    message: Any,
    clients: int,
    gate: network.Gate,
) -> network.Remote:
    """Lets clients in, and waits until each has been there once."""
    c = config.exchange
    self_test(config)
    chosen, one = suites.suite(c.suite, c.unsafe), identity(config, workdir / "keys" / "server.key")
    agreed, roster = network.agreement(config), workdir / "roster.cbor"
    LOG.info("server %s waits for %d clients", one.id.hex(), clients)
    gate.begin(network.Terms(one.public, agreed, clients, c.suite, roster, c.signer))
    ids, registry = gate.everybody()
    host = Host(
        one, ids, registry, wired.tree_spec(message), chosen,
        session=c.session, confidential=c.confidential, max_norm=_max_norm(config), unsafe=c.unsafe,
        verifier=c.signer, kem_provider=suites.kem_provider(chosen, c.kem_provider),
    )  # fmt: skip
    return network.Remote(host, gate)


def _passphrase(c: ml_collections.ConfigDict) -> bytes | None:
    """What encrypts the key files; None for readable ones."""
    if c.key_files == "plain":
        return None
    found = os.environ.get(PASSPHRASE, "")
    if not found:
        raise RunError(
            "config.exchange.key_files is 'encrypted', but the environment variable "
            f"{PASSPHRASE} is not set: expected the passphrase of the key files"
        )
    return found.encode()


def _max_norm(config: ml_collections.ConfigDict) -> float:
    """The norm of a compressed message says nothing of the delta in it."""
    return config.server.max_norm if config.compress.method == "none" else math.inf
