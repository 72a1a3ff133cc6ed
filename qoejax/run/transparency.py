"""``log/`` of a wired run: every round's records appended, signed and shown to witnesses."""

import hashlib
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from qoejax.run import files
from qoejax.run.errors import RunError
from qoejax.wire import cbor, codec, exchange, keyfile, sign
from qoejax.wire.keyfile import Pair
from qoejax.wire.log import note, policy, records, service
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.note import Cosigner, Verifier
from qoejax.wire.log.policy import Policy
from qoejax.wire.log.store import Log

LOG = logging.getLogger("qoejax")


def config_digest(config: dict[str, Any]) -> bytes:
    """SHA-256 [32] of a configuration as the manifest holds it."""
    return hashlib.sha256(cbor.encode(files.dumps(config, sort=True))).digest()


def cosigner(
    path: pathlib.Path, signer: str, passphrase: bytes | None, *, plain: bool = False
) -> Cosigner:
    """The log's key: from ``path`` if it exists, else new and saved there."""
    if not path.exists():
        pair = Pair(*sign.provider(signer, note.SCHEME).generate())
        keyfile.save_pairs(path, note.SCHEME, signer, [pair], passphrase, plain=plain)
    provider, pairs = keyfile.load_pairs(path, note.SCHEME, passphrase)
    if len(pairs) != 1:
        raise keyfile.KeyFileError(f"{path}: holds {len(pairs)} keys, expected the log's one")
    return Cosigner(note.origin(pairs[0].public), provider, *pairs[0])


def with_log(witnesses: str, log: Verifier) -> Policy:
    """The run's policy: its own log, and the witnesses of a policy file (its path, or "").

    Raises:
        RunError: the file is missing, is no policy, or names logs of its own.
    """
    if not witnesses:
        return Policy({log.name: log}, {}, {}, policy.NONE)
    try:
        found = policy.parse(pathlib.Path(witnesses).read_text())
    except OSError as error:
        raise RunError(f"witnesses {witnesses}: {error.strerror}, expected a policy") from None
    except (LogError, UnicodeDecodeError) as error:
        raise RunError(f"witnesses {witnesses}: {error}") from None
    if found.logs:
        raise RunError(f"witnesses {witnesses}: names a log, expected witnesses and a quorum only")
    return found._replace(logs={log.name: log})


class Ledger:
    """Writes a run's log; a context manager. One process at a time.

    Args:
        folder: the log's folder.
        key: signs its checkpoints.
        trusted: the run's policy, written beside the entries.
        config: ``config_digest`` of the run.

    Attributes:
        known: who the log says is enrolled and revoked.

    Raises:
        LogError: see ``store.Log``.
    """

    def __init__(self, folder: pathlib.Path, key: Cosigner, trusted: Policy, config: bytes):
        self._log = Log(folder, key)
        self._trusted, self._config = trusted, config
        text = policy.render(trusted).encode()
        files.write_bytes(folder / "policy", text)
        self._policy = hashlib.sha256(text).digest()
        self.known = records.known(self._log.entries)
        self._run = b""
        self._pending: list[bytes] = []
        self._cosigned = _cosigned(self._log, trusted)
        self._failed: dict[str, str] = {}

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the files."""
        self._log.close()

    @property
    def head(self) -> note.Checkpoint | None:
        """The last checkpoint."""
        return None if self._log.note is None else self._log.note.checkpoint

    def begin(self, facts: records.Facts, number: int, model: bytes) -> bytes:
        """What changed since the last round, before it is announced.

        Args:
            facts: of the exchange.
            number: of the round.
            model: encoded base model.

        Returns:
            The checkpoint that the announcement is to name; empty at first.
        """
        if facts.run != self._run:
            opened = records.Session(
                run=facts.run,
                manifest=facts.manifest,
                server=facts.server,
                first=number,
                model=codec.model_digest(model),
                config=self._config,
                policy=self._policy,
            )
            self._pending.append(records.session(opened))
            self._run = facts.run
        known, signed = self.known, facts.signed
        new = signed if signed is not None and signed.serial > known.serial else None
        self._pending += records.registry_changes(
            known.registry, facts.registry, facts.notices, new
        )  # fmt: skip
        serial = known.serial if new is None else new.serial
        self.known = records.Known(facts.registry, serial)
        return b"" if self.head is None else note.body(self.head).encode()

    def record(self, entries: Sequence[bytes]) -> dict[str, Any]:
        """Appends what is pending and a round's entries, and asks the witnesses.

        Returns:
            The round's report: entries, bytes, seconds, cosignatures.

        Raises:
            SplitViewError: a witness has seen another history of this log.
        """
        start = time.perf_counter()
        new = [*self._pending, *entries]
        signed = self._log.append(new, int(time.time()))
        self._pending = []
        appended = time.perf_counter() - start
        lines, failed = service.collect(self._trusted, signed, self._log.tree, self._cosigned)
        if lines:
            signed = self._log.add(lines)
        self._cosigned = _cosigned(self._log, self._trusted) if lines else self._cosigned
        for name in failed.keys() - self._failed.keys():
            LOG.warning("witness %s did not cosign: %s", name, failed[name])
        self._failed = failed
        return {
            "entries": len(new),
            "size": signed.checkpoint.size,
            "bytes": sum(map(len, new)),
            "cosigned": len(signed.signatures) - 1,
            "append_s": appended,
            "witness_s": time.perf_counter() - start - appended,
        }

    def finish(self, params: bytes, rounds: int) -> None:
        """Closes the run, unless its last entry says the same already.

        Args:
            params: SHA-256 [32] of the saved parameters.
            rounds: number of rounds trained.
        """
        run, model = b"", b""
        for data in self._log.entries:
            fields = cbor.decode(data)
            if fields["kind"] == "run":
                run, model = fields["run"], fields["model"]
            elif fields["kind"] == "result":
                model = fields["model"]
        if not run:
            return
        last = records.final(run, rounds, model, params)
        if self._log.entries[-1] != last:
            self.record([last])


def _cosigned(log: Log, trusted: Policy) -> dict[str, int]:
    """Size that each witness cosigned last, as far as the last checkpoint tells."""
    if log.note is None:
        return {}
    signed = {s.key_id for s in log.note.signatures}
    size = log.note.checkpoint.size
    return {n: size for n, w in trusted.witnesses.items() if w.verifier.key_id in signed}


def round_entries(
    facts: records.Facts,
    data: bytes,
    result: exchange.RoundResult,
    number: int,
    after: tuple[bytes, bytes],
) -> list[bytes]:
    """Entries of one round of an exchange.

    Args:
        facts: of the exchange.
        data: the announcement, as sent.
        result: what came out.
        number: of the round.
        after: digest of the next encoded model, and of its spec.
    """
    outcome = records.Outcome(
        run=facts.run,
        round=number,
        greetings={facts.ids[i]: slot for i, slot in result.greetings.items()},
        slots={facts.ids[i]: slot for i, slot in result.slots.items()},
        rejected={facts.ids[i]: str(code) for i, code in result.rejected.items()},
        evidence=result.evidence,
        aggregate=b"",
        model=after[0],
        spec=after[1],
    )
    return [records.announcement(data), *records.outcome(outcome)]
