"""Who takes part, from key files and an authority's registry, and what is refused."""

import contextlib
import functools
import logging

import ml_collections
import numpy as np
import pytest

from qoejax.fed import ring
from qoejax.run import parties, transparency
from qoejax.run.errors import RunError
from qoejax.run.sums import Rules, Session
from qoejax.run.train import train
from qoejax.run.verify import audit_run, verify
from qoejax.wire import authority, codec, enrolment, keyfile, keys, sign
from qoejax.wire.exchange import Exchange
from qoejax.wire.keyfile import Pair
from qoejax.wire.log import audit, records, store
from qoejax.wire.log.errors import LogError
from tests.run.conftest import tiny_config
from tests.wire import helpers
from tests.wire.helpers import identities
from tests.wire.log.helpers import CONFIG, SPEC, encoded, log_key, with_witnesses

ROOT = Pair(*sign.provider(authority.PROVIDER, helpers.QUICK).generate())
SERVER, *CLIENTS = identities("openssl", 5)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    helpers.quick_authority(monkeypatch)


def enrolled(count=3, **changes):
    return [keys.enrol(one, (1,), **changes) for one in CLIENTS[:count]]


def publish(folder, registry, serial=1):
    signed = enrolment.publish(registry, serial, *ROOT)
    (folder / "registry").write_bytes(enrolment.pack_registry(signed))


@functools.cache
def first():
    """The first registry: three clients."""
    signed = enrolment.publish(keys.register(enrolled(), "openssl"), 1, *ROOT)
    return enrolment.pack_registry(signed)


def section(folder, **changes):
    """``config.exchange`` of a run of three enrolled clients whose files are in ``folder``."""
    own = {
        "mode": "pqc", "signer": "openssl", "suite": 1, "key_files": "plain",
        "registry": str(folder / "registry"), "authority": ROOT.public.hex(),
        "key_dir": str(folder / "keys"),
    }  # fmt: skip
    return ml_collections.ConfigDict(own | changes)


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "keys"
    keyfile.save(where / "server.key", [SERVER], None, plain=True)
    for i, one in enumerate(CLIENTS[:3]):
        keyfile.save(where / "clients" / f"{i}.key", [one], None, plain=True)
    (tmp_path / "registry").write_bytes(first())
    return tmp_path


NEW = records.known([])


def find(folder, known=NEW, clients=3, **changes):
    c = section(folder, **changes)
    parties.check(c)
    return parties.find(c, clients, folder / "own", known, None)


def ledger(folder):
    return transparency.Ledger(folder / "log", log_key(), with_witnesses(log_key()), CONFIG)


def rounds(folder, who, first, last):
    """A logged exchange of rounds ``first`` to ``last`` - 1; codes of what was refused."""
    refused = []
    with (
        ledger(folder) as log,
        Exchange(clients=3, spec=SPEC, signer="openssl", who=who) as wire,
    ):
        for number in range(first, last):
            facts = wire.facts()
            checkpoint = log.begin(facts, number, encoded(number))
            data = wire.begin_round(number, encoded(number), log=checkpoint)
            for i in range(3):
                wire.submit(i, encoded(i), n_samples=1)
            result = wire.finish_round()
            after = codec.model_digest(encoded(number + 1)), codec.spec_digest(SPEC)
            log.record(transparency.round_entries(facts, data, result, number, after))
            refused.append({i: str(code) for i, code in result.rejected.items()})
    return refused


def test_a_run_of_enrolled_clients_names_their_authority(folder, data_dir, tmp_path):
    values = section(folder, session=8).to_dict()
    train(tiny_config(data_dir, exchange=values, fed={"rounds": 2}), tmp_path / "run")
    found = verify(tmp_path / "run")
    assert found["ok"], found
    assert (found["authority"], found["unsigned"]) == (ROOT.public.hex(), 0)
    state = audit_run(tmp_path / "run").state
    assert state.registry.entries.keys() == {one.id for one in CLIENTS[:3]}
    assert verify(tmp_path / "run", authority=ROOT.public.hex())["ok"]
    odd = verify(tmp_path / "run", authority=bytes(32).hex())
    assert not odd["ok"]
    assert "another authority" in odd["reason"]


def test_a_client_that_the_authority_revokes_or_that_rotates_is_known_by_the_next_run(folder):
    """Registries only grow; a rotated key sends under its own epoch."""
    who = find(folder)
    assert rounds(folder, who, 0, 2) == [{}, {}]
    replaced = enrolment.rotate(CLIENTS[2], CLIENTS[3], 1, (1,))
    grown = enrolment.admit(keys.register(enrolled(), "openssl"), replaced, "openssl")
    publish(folder, keys.revoke(grown, CLIENTS[0].id), 2)
    (folder / "keys" / "clients" / "2.key").unlink()
    keyfile.save(folder / "keys" / "clients" / "2.key", [CLIENTS[3]], None, plain=True)
    with ledger(folder) as log:
        known = log.known
    assert known.serial == 1
    again = find(folder, known)
    assert rounds(folder, again, 2, 4) == [{0: "REVOKED"}] * 2
    report = audit.audit(store.read(folder / "log"), with_witnesses(log_key()))
    assert report.state.authority == (ROOT.public, 2)
    assert report.state.registry.revoked == {CLIENTS[0].id, CLIENTS[2].id}
    assert report.state.registry.entries[CLIENTS[3].id].epoch == 1
    with ledger(folder) as log:
        known = log.known
    (folder / "registry").write_bytes(first())
    with pytest.raises(RunError, match="registry 1, known up to 2"):
        find(folder, known)


@pytest.mark.parametrize("signer", ["openssl", "pqcrypto"], ids=["threads", "processes"])
def test_masked_rounds_refuse_revoked_members(folder, signer):
    publish(folder, keys.revoke(keys.register(enrolled(), "openssl"), CLIENTS[1].id), 2)
    rules = Rules(0, 1, 1, False, 0.0, 0.0, signer)
    words = {i: np.arange(4, dtype=np.uint32) + i for i in range(3)}
    with contextlib.closing(Session(find(folder), rules, ring.fit(1.0, 1.0, 3), 4)) as session:
        _, told = session.tell(0, b"model", [0, 1, 2])
        found = session.sums(session.begin(told, words, {}), words, {})
    assert found.counted == {0, 2}
    assert found.refused == {CLIENTS[1].id: "REVOKED"}
    np.testing.assert_array_equal(found.words[0], words[0] + words[2])


def test_a_log_takes_nothing_back(folder):
    rounds(folder, find(folder), 0, 1)
    with ledger(folder) as log:
        known = log.known.registry
    other = {n: e._replace(valid_to=5) for n, e in known.entries.items()}
    with pytest.raises(LogError, match="with another enrolment"):
        records.registry_changes(known, known._replace(entries=other), ())
    with pytest.raises(LogError, match="not what it was"):
        records.registry_changes(known, known._replace(entries={}), ())


def test_who_will_be_refused_is_warned_about(folder, caplog):
    publish(folder, keys.register(enrolled(valid_to=5), "openssl"))
    with caplog.at_level(logging.WARNING, "qoejax"):
        find(folder)
    assert caplog.text.count("not valid now: its updates will be refused") == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registry": ""}, "config.exchange.authority is"),
        ({"registry": "", "authority": ""}, "config.exchange.key_dir is"),
        ({"key_dir": ""}, "config.exchange.key_dir is ''"),
        ({"authority": "00"}, "64 hexadecimal digits"),
        ({"authority": "kings"}, "64 hexadecimal digits"),
        ({"mode": "none"}, "nobody would send anything"),
        ({"authority": bytes(32).hex()}, "signed by another authority"),
        ({"registry": "nowhere"}, "nowhere: No such file or directory, expected a registry"),
        ({"signer": "pqcrypto"}, r"server.key: holds 1 key\(s\) of openssl ml-dsa-65"),
        ({"suite": 3}, "expected one of openssl ml-dsa-87"),
        ({"suite": 2}, "is enrolled for 0x0001, not for 0x0002"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(folder, changes, message):
    with pytest.raises(RunError, match=message):
        find(folder, **changes)


def test_missing_twice_used_and_unknown_keys_are_one_sentence(folder):
    with pytest.raises(RunError, match="holds 3 key files, expected one for each of 4 clients"):
        find(folder, clients=4)
    last = folder / "keys" / "clients" / "2.key"
    for one, message in ((CLIENTS[0], "share one key"), (CLIENTS[3], "is not in the registry")):
        last.unlink()
        keyfile.save(last, [one], None, plain=True)
        with pytest.raises(RunError, match=message):
            find(folder)
