"""Who takes part in a run, from ``config.exchange``: its own key files, or an authority's registry.

exchange.registry   "" lets clients enrol themselves; else the file that ``keys enrol`` wrote
exchange.authority  the public key that must have signed it, in hexadecimal
exchange.key_dir    folder with server.key and clients/*.key, one key each, in order of name
"""

import logging
import pathlib
import time
from typing import Any

from qoejax.run import enrol
from qoejax.run.errors import RunError
from qoejax.wire import keyfile, keys, members, suites
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.log.records import Known
from qoejax.wire.members import Members

LOG = logging.getLogger("qoejax")


def check(exchange: Any) -> None:
    """Refuses a registry without what it needs, or the other way round, before anything is read.

    Raises:
      RunError: names the key, its value and what was expected.
    """
    c = exchange
    if not c.registry:
        for key in ("authority", "key_dir"):
            if c[key]:
                raise RunError(
                    f"config.exchange.{key} is {c[key]!r}, but config.exchange.registry is '': "
                    "expected the authority's registry, or neither"
                )
        return
    if c.mode == "none":
        raise RunError(
            f"config.exchange.registry is {c.registry!r}, but config.exchange.mode is 'none': "
            "nobody would send anything; expected another mode, or no registry"
        )
    if not c.key_dir:
        raise RunError(
            f"config.exchange.registry is {c.registry!r}, but config.exchange.key_dir is '': "
            "expected the folder that holds server.key and clients/*.key"
        )
    if len(_authority(c)) != 32:
        raise RunError(
            f"config.exchange.authority is {c.authority!r}: expected the public key of the "
            "authority that signed the registry, 64 hexadecimal digits ('keys registry' shows it)"
        )


def _authority(exchange: Any) -> bytes:
    try:
        return bytes.fromhex(exchange.authority)
    except ValueError:
        return b""


def find(
    exchange: Any,
    clients: int,
    folder: pathlib.Path,
    known: Known,
    passphrase: bytes | None,
) -> Members:
    """The parties of a run.

    Args:
      exchange: ``config.exchange``.
      clients: How many a run has.
      folder: Of the run's own key files, where no registry is given.
      known: What the run's log holds of earlier sessions.
      passphrase: Of the key files; None for readable ones.

    Raises:
      RunError: keys are missing, too many, of another provider or scheme, or not enrolled.
      KeyFileError: a key file cannot be used; names it.
    """
    c = exchange
    if not c.registry:
        return members.simulated(
            clients, c.suite, c.signer, folder, passphrase, plain=passphrase is None,
            known=known.registry,
        )  # fmt: skip
    here = pathlib.Path(c.key_dir)
    (server,) = _identities([here / "server.key"], c, passphrase)
    files = sorted((here / "clients").glob("*.key"))
    if len(files) != clients:
        raise RunError(
            f"config.exchange.key_dir: {here / 'clients'} holds {len(files)} key files, expected "
            f"one for each of {clients} clients"
        )
    registry = pathlib.Path(c.registry)
    try:
        found = members.enrolled(
            server, _identities(files, c, passphrase), c.suite, enrol.read_registry(registry),
            _authority(c), least=known.serial, known=known.registry, verifier=c.signer,
        )  # fmt: skip
    except EnvelopeError as error:
        raise RunError(f"config.exchange.registry {registry}: {error}") from None
    _warn(found, c.suite)
    return found


def _identities(
    paths: list[pathlib.Path], exchange: Any, passphrase: bytes | None
) -> list[keys.Identity]:
    """One identity of each file, of the run's provider and scheme."""
    wanted = (exchange.signer, suites.suite(exchange.suite, unsafe=True).scheme)
    out = []
    for path in paths:
        found = keyfile.load(path, passphrase)
        kind = (found[0].provider, found[0].scheme)
        if len(found) != 1 or kind != wanted:
            raise RunError(
                f"{path}: holds {len(found)} key(s) of {' '.join(kind)}, expected one of "
                f"{' '.join(wanted)} (config.exchange.signer and .suite)"
            )
        out += found
    return out


def _warn(found: Members, suite: int) -> None:
    """Says who will be refused in every round: a registry may well hold them."""
    now = int(time.time())
    for one in found.clients:
        entry = found.registry.entries[one.id]
        try:
            keys.lookup(found.registry, one.id, entry.epoch, suite, now)
        except EnvelopeError as error:
            LOG.warning("%s: its updates will be refused", error)
