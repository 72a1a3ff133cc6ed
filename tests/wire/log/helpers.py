"""Logs, witnesses and runs, small and quick."""

import functools

import numpy as np

from qoejax.run import transparency
from qoejax.wire import codec, members, sign
from qoejax.wire.exchange import Exchange
from qoejax.wire.log import note, policy, records, witness
from qoejax.wire.log.note import Cosigner
from qoejax.wire.log.policy import Group, Policy, Witness

SPEC = codec.tree_spec([("w", (8,), "f4")])
CONFIG = transparency.config_digest({"seed": 0})


def encoded(value):
    return codec.encode(SPEC, [np.full(8, value, np.float32)])


@functools.cache
def key(name="example.org/log", provider="openssl"):
    return Cosigner(name, provider, *sign.provider(provider, note.SCHEME).generate())


def log_key():
    return key(note.origin(b"log"))


def with_witnesses(log, *witnesses, quorum="all", urls=()):
    """A policy of one log and named witnesses."""
    urls = [*urls, *[""] * len(witnesses)]
    known = {f"w{i}": Witness(one.verifier, urls[i]) for i, one in enumerate(witnesses)}
    if not known:
        return Policy({log.verifier.name: log.verifier}, {}, {}, policy.NONE)
    threshold = {"all": len(known), "any": 1}.get(quorum, quorum)
    group = {"witnesses": Group(threshold, tuple(known))}
    return Policy({log.verifier.name: log.verifier}, known, group, "witnesses")


def make_witness(folder, name, *logs):
    folder.mkdir(parents=True, exist_ok=True)
    return witness.Witness(key(name), {log.verifier.name: log.verifier for log in logs}, folder)


def _kept(folder, clients, ledger):
    """Parties whose keys are in ``folder``, and who are what the log says of them."""
    if folder is None:
        return {}
    known = ledger.known.registry
    who = members.simulated(clients, 1, "openssl", folder, plain=True, known=known)
    return {"who": who}


def write_run(
    folder, rounds=3, *, trusted=None, clients=4, revoke_after=None, told=None, close=False,
    first=0, keys=None, **more,
):  # fmt: skip
    """A run over the wire whose log is in ``folder``; the model counts up.

    ``told`` is given the exchange; ``close`` has clients in sessions sign at the end; ``first`` is
    the round that a resumed run goes on with, ``keys`` the folder of keys that it shares with the
    first one; ``more`` are options of the exchange.
    """
    trusted = trusted or with_witnesses(log_key())
    spec = codec.spec_digest(SPEC)
    options = {"signer": "openssl", "max_norm": 100.0} | more
    with (
        transparency.Ledger(folder, log_key(), trusted, CONFIG) as ledger,
        Exchange(clients=clients, spec=SPEC, **_kept(keys, clients, ledger), **options) as wire,
    ):
        if told is not None:
            told["wire"] = wire
        for number in range(first, rounds):
            model, facts = encoded(number), wire.facts()
            checkpoint = ledger.begin(facts, number, model)
            data = wire.begin_round(number, model, log=checkpoint)
            for i in range(clients):
                wire.submit(i, encoded(1e6 if (number, i) == (1, 2) else i), n_samples=i + 1)
            result = wire.finish_round()
            after = codec.model_digest(encoded(number + 1)), spec
            ledger.record(transparency.round_entries(facts, data, result, number, after))
            if number == revoke_after:
                wire.revoke(0)
        if close:
            slots, _ = wire.close_sessions()
            ledger.record([records.closing(slot) for slot in slots.values()])
        ledger.finish(bytes(32), rounds)
    return trusted
