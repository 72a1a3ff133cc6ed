"""One envelope from all sides: layout, golden bytes, the stock library, every altered byte."""

import numpy as np
import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire import client, codec, envelope, kem, keys, server, sign
from qoejax.wire.clock import Clock
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire import helpers
from tests.wire.helpers import LEAVES, MODEL, NOW, SPEC

SUITES = [0x0001, 0x0002, envelope.PLAINTEXT]


def test_header_layout_is_the_specified_one():
    fields = envelope.Header(
        3, 1, 7, b"r" * 16, 2, 3, b"s" * 16, b"t" * 16, b"b" * 32, b"c" * 32, b"a" * 32,
        b"p" * 32, 5, 6,
    )  # fmt: skip
    data = envelope.pack(fields)
    assert envelope.HEADER_SIZE == len(data) == 218
    number = int.to_bytes
    front = [b"QJX1", b"\1", b"\3", b"\0\1", b"\0\0", number(7, 4), b"r" * 16, number(2, 8)]
    ids = [number(3, 4), b"s" * 16, b"t" * 16]
    digests = [b"b" * 32, b"c" * 32, b"a" * 32, b"p" * 32]
    assert data == b"".join([*front, *ids, *digests, number(5, 8), number(6, 8)])
    assert envelope.unpack(data) == fields


@pytest.mark.parametrize("changes", [{"run": b"r"}, {"prev": b""}, {"seq": 2**32}, {"round": -1}])
def test_headers_that_do_not_fit_are_refused(changes):
    header = envelope.unpack(helpers.seal(helpers.scene()).envelope)
    with pytest.raises(EnvelopeError) as caught:
        envelope.pack(header._replace(**changes))
    assert caught.value.code is Code.FORMAT


@pytest.mark.parametrize("suite", SUITES)
def test_round_trip_and_exact_size(suite):
    at = helpers.scene(suite=suite)
    clock = Clock()
    data = helpers.seal(at).envelope
    assert len(data) == len(MODEL) + (218 if suite == envelope.PLAINTEXT else 4663)
    state, leaves = server.open(
        at.round, helpers.EMPTY, data, at.secret, NOW, verifier="pqcrypto", clock=clock
    )
    for got, want in zip(leaves, LEAVES, strict=True):
        np.testing.assert_array_equal(got, want)
    assert state.chains[at.clients[0].id].seq == 1
    assert "hash" in clock.seconds
    assert ("verify" in clock.seconds) == (suite != envelope.PLAINTEXT)


@pytest.mark.parametrize("provider", sorted(sign.PROVIDERS))
def test_either_signer_is_accepted_by_either_verifier(provider):
    one = helpers.identities(provider, 1)[0]
    registry = keys.register([keys.enrol(one, (1,))], verifier="openssl")
    at = helpers.scene()
    rnd = at.round._replace(registry=registry, invited=frozenset([one.id]))
    sealed = client.seal(SPEC, LEAVES, one, rnd.announced, n_samples=1)
    for verifier in sign.PROVIDERS:
        state, leaves = server.open(
            rnd, helpers.EMPTY, sealed.envelope, at.secret, NOW, verifier=verifier
        )
        assert len(leaves) == 2
        slot = state.slots[one.id, 0]
        assert server.proves(slot, one.public, verifier)
        assert not server.proves(slot._replace(digest=bytes(64)), one.public, verifier)


def test_stock_hpke_opens_what_follows_the_header():
    """The public library, which knows nothing of this project, with ``info`` from the header."""
    m, x = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    public = m.public_key().public_bytes_raw() + x.public_key().public_bytes_raw()
    one = helpers.scene().clients[0]
    header = client.update_header(
        helpers.scene().round.announced, one.id, 0, client.Chain(), 5, len(MODEL)
    )
    sealed = envelope.seal_update(header, MODEL, public, one.sign)
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    plain = suite.decrypt(
        sealed.envelope[218:],
        hpke.MLKEM768X25519PrivateKey(m, x),
        b"qoejax/v1/hpke\0" + sealed.envelope[:218],
    )
    assert plain[3309:] == MODEL
    verify = sign.provider("openssl").verify
    assert verify(one.public, sealed.transcript, plain[:3309], b"qoejax/v1/update")


def test_every_flipped_byte_is_refused():
    at = helpers.scene()
    data = helpers.seal(at).envelope
    regions = {Code.DECRYPT: 0}
    for i in range(len(data)):
        bad = data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :]
        with pytest.raises(EnvelopeError) as caught:
            helpers.deliver(at, bad)
        code = caught.value.code
        regions[code] = regions.get(code, 0) + 1
        if i >= envelope.HEADER_SIZE:
            assert code is Code.DECRYPT
    assert sum(regions.values()) == len(data) == 4695
    assert {Code.FORMAT, Code.VERSION, Code.SUITE, Code.ROUND, Code.SENDER, Code.SIZE} < set(
        regions
    )


def test_every_truncation_and_some_extensions_are_refused():
    at = helpers.scene()
    data = helpers.seal(at).envelope
    for n in range(len(data)):
        helpers.refused(Code.SIZE, at, data[:n])
        helpers.refused(Code.SIZE, at, data[n + 1 :])
    for more in (b"\0", data[-1:], data, bytes(4096)):
        helpers.refused(Code.SIZE, at, data + more)
        helpers.refused(Code.SIZE, at, more + data)


def test_opening_alone_checks_length_and_form_too():
    at = helpers.scene()
    data = helpers.seal(at).envelope
    key = at.clients[0].public
    cases = [(data[:-1], Code.SIZE), (data + b"\0", Code.SIZE), (data[:100], Code.SIZE)]
    cases += [(at.data, Code.FORMAT), (b"X" + data[1:], Code.FORMAT)]
    for bad, code in cases:
        with pytest.raises(EnvelopeError) as caught:
            envelope.open_update(bad, at.secret, key)
        assert caught.value.code is code


@given(st.binary(max_size=300), st.integers(0, 4700), st.booleans())
def test_only_envelope_errors_escape(noise, start, insert):
    at = helpers.scene()
    data = helpers.seal(at).envelope
    end = start if insert else start + len(noise)
    for bad in (noise, data[:start] + noise + data[end:]):
        if bad != data:
            with pytest.raises(EnvelopeError):
                helpers.deliver(at, bad)


@pytest.mark.parametrize("suite", [0, 6, 0x0100, 0x0103, 0x01F0, 0xFFFF])
def test_unknown_suites_are_refused(suite):
    with pytest.raises(EnvelopeError) as caught:
        envelope.suite(suite, unsafe=True)
    assert caught.value.code is Code.SUITE


def test_plaintext_is_refused_unless_unsafe():
    at = helpers.scene(suite=envelope.PLAINTEXT)
    data = helpers.seal(at).envelope
    safe = at._replace(round=at.round._replace(unsafe=False))
    helpers.refused(Code.SUITE, safe, data)
    with pytest.raises(EnvelopeError) as caught:
        helpers.seal(safe)
    assert caught.value.code is Code.SUITE
    # Nor can a plaintext message of the right length pass in a run that encrypts.
    at = helpers.scene()
    header = envelope.unpack(helpers.seal(at).envelope)._replace(suite=envelope.PLAINTEXT)
    helpers.refused(Code.SUITE, at, envelope.pack(header) + bytes(4695 - 218))


def test_sealing_refuses_what_could_not_be_opened():
    at = helpers.scene()
    told = at.round.announced
    other = codec.tree_spec([("x", (8,), "f4")])
    with pytest.raises(EnvelopeError) as caught:
        client.seal(other, [np.zeros(8, "f4")], at.clients[0], told, n_samples=1)
    assert caught.value.code is Code.SPEC
    header = client.update_header(told, at.clients[0].id, 0, client.Chain(), 1, 5)
    with pytest.raises(EnvelopeError) as caught:
        envelope.seal_update(header, MODEL, told.announce.round_key, at.clients[0].sign)
    assert caught.value.code is Code.SIZE
    with pytest.raises(EnvelopeError) as caught:
        envelope.seal_update(
            header._replace(type=2, payload_len=32),
            MODEL,
            told.announce.round_key,
            at.clients[0].sign,
        )
    assert caught.value.code is Code.FORMAT


def test_two_sealings_of_one_payload_share_nothing_after_the_header():
    at = helpers.scene()
    one, two = helpers.seal(at).envelope, helpers.seal(at).envelope
    assert one[:218] == two[:218]
    assert one[218:1338] != two[218:1338]
    assert sum(a == b for a, b in zip(one[1338:], two[1338:], strict=True)) < 60
    assert MODEL not in one


def test_a_key_is_only_good_for_its_round():
    at, later = helpers.scene(), helpers.scene(number=1)
    data = helpers.seal(at).envelope
    with pytest.raises(EnvelopeError) as caught:
        envelope.open_update(data, later.secret, at.clients[0].public)
    assert caught.value.code is Code.DECRYPT
    public, secret = kem.keygen()
    assert len(secret) == kem.SECRET_SIZE
    assert public != at.round.announced.announce.round_key
