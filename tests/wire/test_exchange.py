"""Rounds from end to end, with and without a network that meddles."""

import math
import os
import signal
import threading

import numpy as np
import pytest

from qoejax.wire import client, codec, envelope, keyfile, keys, pool, server, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.exchange import Exchange
from tests.wire import helpers
from tests.wire.helpers import MODEL, SPEC

N = 4
SAMPLES = {i: 10 + i for i in range(N)}


def payload(i: int, scale: float = 1.0) -> bytes:
    leaves = [np.full(2, i * scale, "f4"), np.arange(6, dtype="f4").reshape(2, 3) * scale]
    return codec.encode(SPEC, leaves)


PAYLOADS = {i: payload(i) for i in range(N)}


def make(**more) -> Exchange:
    settings = {"clients": N, "spec": SPEC, "signer": "openssl", "mode": "threads"} | more
    return Exchange(**settings)


@pytest.mark.parametrize(
    ("signer", "mode"), [("pqcrypto", None), ("openssl", None), ("openssl", "processes")]
)
def test_what_is_opened_is_what_was_sealed_round_after_round(signer, mode):
    with make(signer=signer, mode=mode, workers=2) as one:
        for number in range(3):
            result = one.round(number, MODEL, PAYLOADS, SAMPLES)
            assert result.payloads == PAYLOADS
            assert result.n_samples == SAMPLES
            assert result.rejected == {}
            assert result.bytes_up == N * (4663 + len(MODEL))
            for i, slot in result.slots.items():
                header = envelope.unpack(slot.header_bytes)
                assert header.seq == header.round == number
                assert header.announce == result.announcement
                assert server.proves(slot, one._fleet.ids[i].public)
        want = {"kem", "sign", "verify", "aead", "hash", "codec"}
        assert want | {"seal", "open", "check", "announce", "wall", "wait"} == set(result.seconds)
        assert all(value > 0 for value in result.seconds.values())
        assert len(one._pool.pids) == (2 if mode or signer == "pqcrypto" else 0)


def test_submitting_returns_at_once_and_clients_may_stay_away():
    gate = threading.Event()

    def hold(index, data):
        gate.wait(10)
        return data

    with make(tamper=hold) as one:
        data = one.begin_round(0, MODEL, invited=[0, 2])
        one.submit(2, PAYLOADS[2], 5)  # would block here if it waited for the network
        gate.set()
        result = one.finish_round()
        assert result.payloads == {2: PAYLOADS[2]}
        assert result.bytes_down == 2 * len(data)
        one.begin_round(1, MODEL, invited=[0])
        one.submit(1, PAYLOADS[1], 5)
        result = one.finish_round()
        assert result.rejected == {1: Code.SENDER}
        assert one.round(2, MODEL, {}, {}).payloads == {}


def flip(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_each_kind_of_meddling_is_refused_and_counted():
    held: dict[int, bytes] = {}
    meddling = {
        0: (lambda data: flip(data, -1), Code.DECRYPT),
        1: (lambda data: data[:-7], Code.SIZE),
        2: (lambda data: held[2], Code.ROUND),
    }

    def tamper(index, data):
        held.setdefault(index, data)
        return meddling[index][0](data) if number and index in meddling else data

    with make(tamper=tamper) as one:
        number = 0
        assert one.round(0, MODEL, PAYLOADS, SAMPLES).payloads == PAYLOADS
        number = 1
        result = one.round(1, MODEL, PAYLOADS, SAMPLES)
        assert result.payloads == {3: PAYLOADS[3]}
        assert result.rejected == {i: code for i, (_, code) in meddling.items()}
        assert result.messages[1].startswith("SIZE: ")
        # Refused clients have not moved on, so they are heard again.
        number = 0
        result = one.round(2, MODEL, PAYLOADS, SAMPLES)
        assert result.payloads == PAYLOADS
        assert envelope.unpack(result.slots[0].header_bytes).seq == 1
        assert envelope.unpack(result.slots[3].header_bytes).seq == 2


def test_another_clients_envelope_counts_once_for_its_sender():
    held = {}

    def tamper(index, data):
        held[index] = data
        return held.get(0, data) if index == 1 else data

    with make(tamper=tamper) as one:
        one.begin_round(0, MODEL)
        for i in (0, 1):
            one.submit(i, PAYLOADS[i], 1)
        result = one.finish_round()
        assert (result.payloads, result.duplicates) == ({0: PAYLOADS[0]}, 1)
        one.tamper = None
        assert one.round(1, MODEL, PAYLOADS, SAMPLES).payloads == PAYLOADS


def test_a_cloned_key_is_convicted_or_locks_its_owner_out():
    """The clone answers in place of client 1 with client 0's key."""
    told = {}

    def clone(index, data):
        if index != 1:
            return data
        rnd = told["exchange"]._open.round
        owner = told["exchange"]._fleet.ids[0]
        leaves = codec.decode(SPEC, PAYLOADS[3])
        return client.seal(SPEC, leaves, owner, rnd.announced, n_samples=1).envelope

    with make(tamper=clone) as one:
        told["exchange"] = one
        one.begin_round(0, MODEL)
        one.submit(0, PAYLOADS[0], 1)
        one.submit(1, PAYLOADS[1], 1)
        result = one.finish_round()
        assert list(result.rejected.values()) == [Code.EQUIVOCATION]
        assert len(result.payloads) == len(result.evidence) == 1
        for slot in result.evidence[0]:
            assert server.proves(slot, one._fleet.ids[0].public)
        one.begin_round(1, MODEL)
        one.submit(1, PAYLOADS[1], 1)  # only the clone speaks, again as a first message
        assert one.finish_round().rejected == {1: Code.REPLAY}


def test_bad_updates_are_events_and_not_errors():
    bad = PAYLOADS | {0: np.full(8, np.nan, "<f4").tobytes(), 1: payload(1, 1e6)}
    with make(max_norm=1e3, max_samples=100) as one:
        result = one.round(0, MODEL, bad, SAMPLES | {2: 101})
    assert result.payloads == {3: PAYLOADS[3]}
    assert result.rejected == {0: Code.NONFINITE, 1: Code.POLICY, 2: Code.POLICY}


def test_a_signer_that_gives_up_costs_one_update_not_the_run(monkeypatch):
    with make() as one:

        def exhausted(message, context):
            raise EnvelopeError(Code.SIGN_EXHAUSTED, "the signer gave up 8 times")

        monkeypatch.setattr(one._fleet.ids[2], "_sign", exhausted)
        result = one.round(0, MODEL, PAYLOADS, SAMPLES)
        assert result.rejected == {2: Code.SIGN_EXHAUSTED}
        assert set(result.payloads) == {0, 1, 3}


def test_revoked_clients_are_refused_at_once():
    with make() as one:
        before = one.begin_round(0, MODEL)
        one.revoke(1)
        for i in (0, 1):
            one.submit(i, PAYLOADS[i], 1)
        result = one.finish_round()
        assert (set(result.payloads), result.rejected) == ({0}, {1: Code.REVOKED})
        after = one.begin_round(1, MODEL)
        digests = [a[a.index(b"registry") :][:43] for a in (before, after)]
        assert digests[0] != digests[1]


def test_misuse_is_named():
    with make() as one:
        with pytest.raises(ValueError, match="no round is open"):
            one.finish_round()
        with pytest.raises(ValueError, match="no round is open"):
            one.submit(0, MODEL, 1)
        one.begin_round(3, MODEL)
        with pytest.raises(ValueError, match="still open"):
            one.begin_round(4, MODEL)
        with pytest.raises(ValueError, match="between rounds"):
            one.state()
        with pytest.raises(ValueError, match="client 4: there are clients 0 to 3"):
            one.submit(4, MODEL, 1)
        with pytest.raises(EnvelopeError, match="SIZE: payload of 31 bytes"):
            one.submit(0, MODEL[:-1], 1)
        one.submit(0, MODEL, 1)
        with pytest.raises(ValueError, match="client 0 submitted already"):
            one.submit(0, MODEL, 1)
        one.finish_round()
        with pytest.raises(EnvelopeError, match="ROUND: round 3 does not follow round 3"):
            one.begin_round(3, MODEL)
        assert one.round(4, MODEL, PAYLOADS, SAMPLES).payloads == PAYLOADS


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"clients": 0}, "clients must be at least 1"),
        ({"max_norm": math.nan}, "max_norm must be positive"),
        ({"max_norm": 0.0}, "max_norm must be positive"),
        ({"signer": "gpg"}, "'gpg' is none of"),
        ({"mode": "fibres"}, "'fibres' is none of"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"run_id": b"short"}, "run_id has 16 bytes"),
        ({"suite": 6}, "suite 0x0006 is unknown"),
        ({"suite": 0x01F1}, r"0x01f1 \(classical\) needs unsafe=True"),
        ({"suite": 5}, "openssl has no slh-dsa-sha2-128f: expected one of"),
        ({"suite": 0x01FF, "unsafe": True, "session": 4}, "plaintext suite has neither"),
        ({"suite": envelope.PLAINTEXT}, "needs unsafe=True"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_settings_are_named(more, why):
    with pytest.raises(ValueError, match=why):
        make(**more)


@pytest.mark.parametrize("suite", suites.SUITES)
def test_every_suite_carries_the_same_payloads(suite):
    more = {"suite": suite, "unsafe": suite in (0x01F1, 0x01FF)}
    with make(signer=helpers.signer_of(suite), **more) as one:
        for number in range(2):
            result = one.round(number, MODEL, PAYLOADS, SAMPLES)
            assert (result.payloads, result.rejected) == (PAYLOADS, {})


@pytest.mark.parametrize("mode", pool.MODES)
@pytest.mark.parametrize("suite", [1, 2, 3])
def test_a_session_greets_once_and_then_adds_234_bytes(suite, mode):
    with make(suite=suite, session=3, mode=mode) as one:
        for number in range(7):
            result = one.round(number, MODEL, PAYLOADS, SAMPLES)
            assert (result.payloads, result.rejected) == (PAYLOADS, {})
            assert set(result.greetings) == (set(range(N)) if number % 3 == 0 else set())
            if number % 3:
                assert result.bytes_up == N * (234 + len(MODEL))
                assert not any(map(server.proves, result.slots.values(), [b""] * N))
            for i, slot in result.greetings.items():
                assert server.proves(slot, one._fleet.ids[i].public)
                assert slot.statement[:4] == (3 if number else 0).to_bytes(4, "big")


@pytest.mark.parametrize("session", [0, 5])
def test_a_confidential_model_is_read_by_those_in_the_round_only(session):
    with make(confidential=True, session=session) as one:
        for number in range(3):
            data = one.begin_round(number, MODEL)
            assert MODEL not in data
            for i in range(N):
                one.submit(i, PAYLOADS[i], SAMPLES[i])
            result = one.finish_round()
            assert (result.payloads, result.rejected) == (PAYLOADS, {})
            assert set(result.greetings) == (set() if number else set(range(N)))
            assert result.bytes_down == N * (len(data) + 48)


def test_a_session_goes_on_after_losses_and_forgeries():
    """Every sealing takes a key of its own; what is lost or altered costs one update."""
    rng = np.random.default_rng(3)

    def noise(index, data):
        return flip(data, int(rng.integers(len(data)))) if rng.random() < 0.4 else data

    accepted = 0
    with make(session=8, tamper=noise) as one:
        for number in range(40):
            result = one.round(number, MODEL, PAYLOADS, SAMPLES)
            assert result.payloads == {i: PAYLOADS[i] for i in result.payloads}
            assert set(result.payloads) | set(result.rejected) == set(PAYLOADS)
            accepted += len(result.payloads)
        one.tamper = None
        assert one.round(40, MODEL, PAYLOADS, SAMPLES).payloads == PAYLOADS
    assert 40 < accepted < 160


def test_a_resumed_exchange_greets_again_and_keeps_its_numbers(tmp_path):
    folder = {"key_dir": tmp_path / "keys", "plain_keys": True, "session": 9}
    with make(**folder) as one:
        for number in range(3):
            one.round(number, MODEL, PAYLOADS, SAMPLES)
        saved = one.state()
        assert not any("session" in name or "repl" in name for name in saved)
    with make(**folder, state=saved) as two:
        result = two.round(3, MODEL, PAYLOADS, SAMPLES)
        assert (result.payloads, len(result.greetings)) == (PAYLOADS, N)
        assert envelope.unpack(result.greetings[0].header_bytes).seq == 4


def test_a_saved_exchange_continues_its_chains(tmp_path, monkeypatch):
    monkeypatch.setattr(keyfile, "_COST", {"n": 1 << 10, "r": 8, "p": 1})
    folder = {"key_dir": tmp_path / "keys", "passphrase": b"correct horse", "run_id": b"r" * 16}
    with make(**folder) as one:
        for number in range(2):
            one.round(number, MODEL, PAYLOADS, SAMPLES)
        saved = {name: np.array(value) for name, value in one.state().items()}
        ids = [identity.id for identity in one._fleet.ids]
    with make(**folder, state=saved) as two:
        assert [identity.id for identity in two._fleet.ids] == ids
        for name, value in two.state().items():
            np.testing.assert_array_equal(value, saved[name])
        with pytest.raises(EnvelopeError, match="ROUND"):
            two.begin_round(1, MODEL)
        result = two.round(2, MODEL, PAYLOADS, SAMPLES)
        assert result.payloads == PAYLOADS
        header = envelope.unpack(result.slots[0].header_bytes)
        assert (header.seq, header.prev) == (2, saved["prev"][0].tobytes())
    with pytest.raises(ValueError, match="other client identities"):
        make(state=saved)
    with pytest.raises(keyfile.KeyFileError, match="expected 5 of 'openssl'"):
        make(**folder | {"clients": N + 1})


def test_keys_on_disk_are_encrypted_or_openly_plain(tmp_path):
    with pytest.raises(keyfile.KeyFileError, match="either a passphrase or plain=True"):
        make(key_dir=tmp_path / "a")
    make(key_dir=tmp_path / "b", plain_keys=True).close()
    assert len(keyfile.load(tmp_path / "b" / "clients.key")) == N


def test_a_hook_that_fails_ends_the_round_with_its_error():
    def broken(index, data):
        raise RuntimeError("cable")

    with make(tamper=broken) as one, pytest.raises(RuntimeError, match="cable"):
        one.round(0, MODEL, PAYLOADS, SAMPLES)


def test_a_dead_worker_ends_the_round_with_a_clear_error():
    with make(mode="processes") as one:
        one.round(0, MODEL, PAYLOADS, SAMPLES)
        os.kill(one._pool.pids[0], signal.SIGKILL)
        with pytest.raises(pool.WorkerError, match="ended with status -9"):
            one.round(1, MODEL, PAYLOADS, SAMPLES)


def test_nothing_secret_is_shown(capfd, caplog):
    with make(mode="processes") as one:
        one.begin_round(0, MODEL)
        secrets = [identity.secret.expose() for identity in (*one._fleet.ids, one._server)]
        secrets.append(one._open.secret.expose()[-64:])
        shown = [repr(one), repr(one._open), repr(vars(one)), repr(vars(one._open))]
        one.submit(0, MODEL, 1)
        shown.append(repr(one.finish_round()))
    out, err = capfd.readouterr()
    text = "".join([*shown, out, err, caplog.text])
    for secret in secrets:
        assert repr(secret)[2:16] not in text
        assert secret.hex()[:20] not in text


def test_tampering_everywhere_never_changes_what_is_accepted():
    """Thousands of flips through the whole exchange: refused, or the payload as sent."""
    rng = np.random.default_rng(0)

    def noise(index, data):
        return flip(data, int(rng.integers(len(data)))) if rng.random() < 0.5 else data

    refused = 0
    with make(tamper=noise) as one:
        for number in range(30):
            result = one.round(number, MODEL, PAYLOADS, SAMPLES)
            assert result.payloads == {i: PAYLOADS[i] for i in result.payloads}
            assert set(result.payloads) | set(result.rejected) == set(PAYLOADS)
            refused += len(result.rejected)
    assert 30 < refused < 90


def test_registry_is_that_of_the_enrolled_clients():
    with make() as one:
        assert set(one._registry.entries) == {identity.id for identity in one._fleet.ids}
        assert keys.registry_digest(one._registry) == one.state()["registry"].tobytes()
