"""Makes ``wire_golden.json``: one of every message, from fixed randomness.

    python -m tests.golden.wire_regenerate

Needs Linux and a C compiler (``tests.wire.shim``). Made by this version, opened by every later one;
regenerate only when the format changes, and say so in docs/wire.md.
"""

import base64
import hashlib
import json
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

from qoejax.wire import (
    announce,
    broadcast,
    client,
    codec,
    envelope,
    kem,
    keys,
    manifest,
    revocation,
    session,
    suites,
)
from qoejax.wire.announce import Announced
from qoejax.wire.secret import Secret
from tests.wire import shim

PATH = pathlib.Path(__file__).with_name("wire_golden.json")
SPEC = codec.tree_spec([("head/bias", (3,), "f4"), ("head/kernel", (2, 3), "f2")])
RUN = b"golden-run-00001"
NOW = 1_700_000_000


def text(value: Any) -> Any:
    """Bytes as base64, inside dicts too."""
    if isinstance(value, dict):
        return {name: text(item) for name, item in value.items()}
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def payload() -> bytes:
    """Two leaves."""
    bias, kernel = np.array([0.5, -1.25, 3e-8], "<f4"), np.arange(6).reshape(2, 3) / 7
    return codec.encode(SPEC, [bias, kernel.astype("<f2")])


def told(boss: keys.Identity, one: keys.Identity, suite: int, key: Secret | None, rounds: int):
    """An announcement: its bytes, its meaning, and the round's secret."""
    chosen = suites.SUITES[suite]
    public, secret = kem.keygen(chosen.kem) if chosen.sealed else (b"", Secret(b""))
    facts = announce.Announce(
        run=RUN,
        round=0,
        suite=suite,
        previous=announce.ZERO,
        base_model=codec.model_digest(payload()),
        tree_spec=codec.spec_digest(SPEC),
        round_key=public,
        registry=keys.registry_digest(keys.register([keys.enrol(one, (suite,))])),
        clients=keys.clients_digest([one.id]),
        deadline=0,
        caps=announce.Caps(session=rounds),
        log=b"",
    )
    data, found = announce.publish(boss, facts, payload(), key)
    return data, found, secret


def update(one: keys.Identity, found: Announced) -> envelope.Sealed:
    """A signed UPDATE of message 0."""
    header = client.update_header(found, one.id, 0, client.Chain(), 17, len(payload()))
    round_key = found.announce.round_key
    return envelope.seal_update(header, payload(), round_key, one.sign, unsafe=True)


def of_suite(number: int) -> dict[str, Any]:
    """An UPDATE of a suite, with what opens it; the default suite's announcement too."""
    scheme = suites.SUITES[number].scheme
    boss, one = keys.generate("pqcrypto", scheme), keys.generate("pqcrypto", scheme)
    data, found, secret = told(boss, one, number, None, 0)
    sealed = update(one, found)
    out = {
        "client_key": one.public,
        "round_secret": secret.expose(),
        "update": sealed.envelope,
        "transcript": sealed.transcript,
    }
    if number == suites.DEFAULT:
        facts = manifest.Manifest(RUN, boss.id, number, codec.spec_digest(SPEC))
        notice, _ = revocation.seal(boss, RUN, number, client.Chain(), one.id, 1)
        out |= {"server_key": boss.public, "announce": data, "digest": found.digest}
        out |= {"manifest": manifest.publish(boss, facts), "revoke": notice}
    return out


def in_session() -> dict[str, Any]:
    """A confidential announcement, HELLO, its grant, and the first UPDATE of the session."""
    boss, one = keys.generate("pqcrypto"), keys.generate("pqcrypto")
    key = broadcast.new_key()
    data, found, secret = told(boss, one, suites.DEFAULT, key, session.ROUNDS)
    header = client.hello_header(found, one.id, 0, client.Chain())
    round_key = found.announce.round_key
    hello = envelope.seal_update(header, session.statement(None), round_key, one.sign)
    assert hello.exports is not None
    begun = session.begin(hello.exports.session, header, NOW)
    message_key, _ = session.take(begun)
    chain = client.Chain(1, hello.transcript[:32])
    header = client.update_header(found, one.id, 0, chain, 17, len(payload()))
    sealed = session.seal(client.in_session(header), payload(), message_key)
    return {
        "server_key": boss.public,
        "client_key": one.public,
        "round_secret": secret.expose(),
        "announce": data,
        "hello": hello.envelope,
        "grant": broadcast.grant(hello.exports.reply, found.digest, key),
        "model_key": key.expose(),
        "update": sealed.envelope,
        "transcript": sealed.transcript,
    }


def make() -> dict[str, Any]:
    """Everything, from randomness that is fixed for each part alone."""
    for number in suites.SUITES:  # self-tests draw randomness of their own
        of_suite(number)
    out = {}
    for number in suites.SUITES:
        shim.feed(hashlib.shake_256(b"golden %d" % number).digest(1 << 16))
        out[f"{number:#06x}"] = of_suite(number)
    shim.feed(hashlib.shake_256(b"golden session").digest(1 << 16))
    return text(out | {"session": in_session()})


def main() -> None:
    """Under the shim prints; else runs itself under the shim and writes the file."""
    if "--print" in sys.argv:
        print(json.dumps(make()))
        return
    with tempfile.TemporaryDirectory() as folder:
        made = json.loads(shim.run("tests.golden.wire_regenerate", pathlib.Path(folder), "--print"))
    PATH.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
