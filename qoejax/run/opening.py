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

from qoejax.run import build, exchange, masking, transparency, wired
from qoejax.run.enrol import PASSPHRASE
from qoejax.run.errors import RunError
from qoejax.wire import suites
from qoejax.wire.exchange import Exchange
from qoejax.wire.kem import SelfTestError
from qoejax.wire.keyfile import KeyFileError
from qoejax.wire.log.errors import LogError
from qoejax.wire.pool import WorkerError

LOG = logging.getLogger("qoejax")


class Wire(NamedTuple):
    """An exchange, or a session of masked sums, and the log of what happens in it."""

    exchange: Exchange | masking.Session
    ledger: transparency.Ledger


@contextlib.contextmanager
def opened(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, message: Any, count: np.ndarray
) -> Iterator[Wire | None]:
    """The wire while a run lasts; None where nothing is exchanged.

    Args:
      config: Of the run.
      workdir: Its folder, which gets keys and log.
      message: What one client sends, a tree of that layout.
      count: Rows of each client.

    Raises:
      RunError: keys, log, workers or self-tests that fail; the sentence says which.
    """
    c = config.exchange
    if c.mode == "none":
        yield None
        return
    with _wire_errors(), _open_ledger(config, workdir) as ledger:
        if c.mode in exchange.MASKED:
            made = exchange.session(config, message, count, workdir / "keys", **_key_files(c))
            yield Wire(made, ledger)
            return
        with contextlib.closing(_open_exchange(config, workdir, message, len(count))) as made:
            yield Wire(made, ledger)


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
    files_of = _key_files(c)
    key = transparency.cosigner(
        path, c.signer, files_of.get("passphrase"), plain=files_of.get("plain_keys", False)
    )
    trusted = transparency.with_log(c.witnesses, key.verifier)
    digest = transparency.config_digest(build.plain_config(config))
    return transparency.Ledger(workdir / "log", key, trusted, digest)


def _open_exchange(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, message: Any, clients: int
) -> Exchange:
    c = config.exchange
    # The norm of a compressed message says nothing of the delta in it.
    max_norm = config.server.max_norm if config.compress.method == "none" else math.inf
    chosen = suites.suite(c.suite, c.unsafe)
    if chosen.status != "standard":
        LOG.warning("suite %#06x (%s) is %s: docs/wire.md", chosen.id, chosen.name, chosen.status)
    return Exchange(
        clients=clients, signer=c.signer, kem_provider=c.kem_provider,
        spec=wired.tree_spec(message), workers=c.workers, suite=c.suite,
        session=c.session, confidential=c.confidential, unsafe=c.unsafe,
        max_norm=max_norm, key_dir=workdir / "keys", **_key_files(c),
    )  # fmt: skip


def _key_files(c: ml_collections.ConfigDict) -> dict[str, Any]:
    if c.key_files == "plain":
        return {"plain_keys": True}
    passphrase = os.environ.get(PASSPHRASE, "")
    if not passphrase:
        raise RunError(
            "config.exchange.key_files is 'encrypted', but the environment variable "
            f"{PASSPHRASE} is not set: expected the passphrase of the key files"
        )
    return {"passphrase": passphrase.encode()}
