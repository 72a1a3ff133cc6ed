"""Every suite: sizes, vectors, stock HPKE, both providers at both ends, and no way down."""

import hashlib
import itertools

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from qoejax.wire import client, envelope, kem, keys, providers, server, sign, suites
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret
from tests.wire import helpers, mlkem_reference, vectors
from tests.wire.helpers import EMPTY, LEAVES, MODEL, NOW, SPEC

SEALED = [number for number, one in suites.SUITES.items() if one.sealed]


@pytest.mark.parametrize("number", SEALED)
def test_the_table_says_what_the_primitives_make(number):
    one = suites.SUITES[number]
    assert one.id == number
    assert one.enc_size == kem.enc_size(one.kem)
    assert one.signature_size == sign.SIZES[one.scheme][1]
    at = helpers.scene(suite=number)
    sealed = helpers.seal(at)
    beyond = 218 + one.enc_size + one.signature_size + one.tag_size
    assert len(sealed.envelope) == len(MODEL) + beyond
    state, leaves = helpers.deliver(at, sealed.envelope)
    assert len(leaves) == len(LEAVES)
    assert server.proves(state.slots[at.clients[0].id, 0], at.clients[0].public)


def test_the_overheads_promised():
    beyond = {n: 218 + s.enc_size + s.signature_size + s.tag_size for n, s in suites.SUITES.items()}
    assert beyond == {
        0x0001: 4663, 0x0002: 4663, 0x0003: 6526, 0x0004: 4727, 0x0005: 18442,
        0x0101: 8008, 0x0102: 4614, 0x01F1: 330, 0x01FF: 218,
    }  # fmt: skip


def test_which_suites_need_to_be_asked_for():
    assert {n for n, one in suites.SUITES.items() if not one.safe} == {0x01F1, 0x01FF}
    found = {n for n, one in suites.SUITES.items() if one.status == "experimental"}
    assert found == {0x0101, 0x0102}
    for number in (0x01F1, 0x01FF):
        at = helpers.scene(suite=number)
        data = helpers.seal(at).envelope
        helpers.refused(Code.SUITE, at._replace(round=at.round._replace(unsafe=False)), data)


def ends(number):
    """Provider of KEM and signature at either end, wherever both exist."""
    one = suites.SUITES[number]
    kems = {suites.kem_provider(one, name) for name in providers.PROVIDERS}
    signers = {n for n in providers.PROVIDERS if not suites.lacking(one, n)}
    return itertools.product(sorted(kems), sorted(signers), sorted(kems), sorted(signers))


@pytest.mark.parametrize("number", SEALED)
def test_each_end_may_use_either_provider(number):
    """The bytes on the wire do not tell, and every pair of ends understands each other."""
    one = suites.SUITES[number]
    at = helpers.scene(suite=number)
    for kem_there, signer, kem_here, verifier in ends(number):
        public, secret = kem.keygen(one.kem, kem_here)
        who = helpers.identities(signer, 1, one.scheme)[0]
        facts = at.round.announced.announce._replace(round_key=public)
        registry = keys.register([keys.enrol(who, (number,))], verifier=verifier)
        rnd = at.round._replace(
            announced=at.round.announced._replace(announce=facts),
            registry=registry,
            invited=frozenset([who.id]),
        )
        sealed = client.seal(
            SPEC, LEAVES, who, rnd.announced, n_samples=1, provider=kem_there, unsafe=True
        )
        _, leaves = server.open(
            rnd, EMPTY, sealed.envelope, secret, NOW, verifier=verifier, provider=kem_here
        )
        assert len(leaves) == len(LEAVES)


def test_hybrid_vector_of_suite_3():
    """MLKEM1024-P384, HKDF-SHA384, AES-256-GCM: shared secret, schedule, exports, first message."""
    (v,) = (v for v in vectors.hpke("hpke-pq-test-vectors.json") if v["kem_id"] == 0x51)
    b = bytes.fromhex
    wide = hashlib.shake_256(b(v["skRm"])).digest(160)
    public = b(v["pkRm"])
    dk = mlkem_reference.decapsulation_key(wide[:32], wide[32:64], public[:1568], rank=4)
    scalar, point = wide[64:112], public[1568:]
    for provider, key in (("pqcrypto", dk), ("openssl", wide[:64])):
        secret = Secret(key + scalar + point)
        shared = kem.decaps(secret, b(v["enc"]), "ml-kem-1024+p384", provider)
        assert shared == Secret(b(v["shared_secret"]))
    context = kem.key_schedule(shared, b(v["info"]), 0x51, 2, kdf_id=2)
    assert context.key == Secret(b(v["key"]))
    assert context.base_nonce == b(v["base_nonce"])
    assert context.exporter == Secret(b(v["exporter_secret"]))
    for case in v["exports"]:
        value = kem.export(context, b(case["exporter_context"]), case["L"])
        assert value == Secret(b(case["exported_value"]))
    first = v["encryptions"][0]
    cipher = kem.AEADS[2](context.key.expose())
    assert cipher.decrypt(context.base_nonce, b(first["ct"]), b(first["aad"])) == b(first["pt"])


def test_classical_vector_of_the_baseline():
    """RFC 9180, A.2: DHKEM(X25519, HKDF-SHA256)."""
    b = bytes.fromhex
    found = [
        v for v in vectors.hpke("test-vectors.json")
        if v["kem_id"] == 0x20 and v["mode"] == 0 and v["kdf_id"] == 1
    ]  # fmt: skip
    assert found
    for v in found:
        secret = Secret(b(v["skRm"]) + b(v["pkRm"]))
        assert kem.decaps(secret, b(v["enc"]), "x25519") == Secret(b(v["shared_secret"]))


def stock(number):
    """The public library's suite and a key pair for it: (suite, its key, public bytes)."""
    x = x25519.X25519PrivateKey.generate()
    pk_x = x.public_key().public_bytes_raw()
    sha256 = hpke.KDF.HKDF_SHA256
    if number == 0x01F1:
        return hpke.Suite(hpke.KEM.X25519, sha256, hpke.AEAD.AES_256_GCM), x, pk_x
    if number == 0x0003:
        m, e = mlkem.MLKEM1024PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
        point = e.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        suite = hpke.Suite(hpke.KEM.MLKEM1024_P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM)
        pk = m.public_key().public_bytes_raw() + point
        return suite, hpke.MLKEM1024P384PrivateKey(m, e), pk
    m = mlkem.MLKEM768PrivateKey.generate()
    aead = hpke.AEAD.CHACHA20_POLY1305 if number == 0x0002 else hpke.AEAD.AES_256_GCM
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, sha256, aead)
    return suite, hpke.MLKEM768X25519PrivateKey(m, x), m.public_key().public_bytes_raw() + pk_x


@pytest.mark.parametrize("number", [0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x01F1])
def test_the_public_library_opens_what_follows_the_header(number):
    one = suites.SUITES[number]
    suite, private, public = stock(number)
    at = helpers.scene(suite=number)
    who = at.clients[0]
    header = client.update_header(at.round.announced, who.id, 0, client.Chain(), 5, len(MODEL))
    sealed = envelope.seal_update(header, MODEL, public, who.sign, unsafe=True)
    plain = suite.decrypt(
        sealed.envelope[218:], private, b"qoejax/v1/hpke\0" + sealed.envelope[:218]
    )
    assert plain[one.signature_size :] == MODEL
    verify = sign.provider(helpers.signer_of(number), one.scheme).verify
    signature = plain[: one.signature_size]
    assert verify(who.public, sealed.transcript, signature, b"qoejax/v1/update")


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(SEALED[:5], 2)))
def test_no_suite_passes_for_another(one, other):
    """A header that names another suite, freshly sealed or altered, is refused as SUITE."""
    here = helpers.scene(suite=one)
    data = helpers.seal(helpers.scene(suite=other)).envelope
    want = suites.SUITES[one]
    same_size = len(data) == envelope.update_size(want, len(MODEL))
    helpers.refused(Code.SUITE if same_size else Code.SIZE, here, data)
    own = helpers.seal(here).envelope
    helpers.refused(Code.SUITE, here, own[:6] + other.to_bytes(2, "big") + own[8:])


@pytest.mark.parametrize("number", SEALED)
def test_altered_cut_and_extended_envelopes_are_refused(number):
    at = helpers.scene(suite=number)
    data = helpers.seal(at).envelope
    one = suites.SUITES[number]
    start = 218 + one.enc_size
    places = {*range(0, 218, 5), *range(218, len(data), len(data) // 40)}
    places |= {start - 1, start, len(data) - 1}
    for i in places:
        with pytest.raises(EnvelopeError) as caught:
            helpers.deliver(at, data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        assert i < 218 or caught.value.code is Code.DECRYPT
    for bad in (data[:-1], data[1:], data[: len(data) // 2], data + b"\0", data + data, b""):
        helpers.refused(Code.SIZE, at, bad)


@pytest.mark.parametrize("number", SEALED)
def test_a_round_a_run_and_a_sender_are_bound_in_every_suite(number):
    at, later = helpers.scene(suite=number), helpers.scene(1, suite=number)
    data = helpers.seal(at).envelope
    helpers.refused(Code.ROUND, later, data)
    helpers.refused(Code.ROUND, helpers.scene(run=b"y" * 16, suite=number), data)
    helpers.refused(Code.DECRYPT, at._replace(secret=later.secret), data)
    helpers.refused(Code.SIGNATURE, at, helpers.reseal(at, who=0, signer=1))


@pytest.mark.parametrize("number", [0x0003, 0x0101, 0x0102])
def test_hybrids_depend_on_every_part(number):
    hybrid = suites.SUITES[number].kem
    public, secret = kem.keygen(hybrid)
    enc, shared = kem.encaps(public, hybrid)
    assert kem.decaps(secret, enc, hybrid) == shared
    size = kem.HYBRIDS[hybrid]
    parts = [providers.kem("pqcrypto", part) for part in size.parts]
    split = parts[0].ciphertext_size
    other, _ = kem.encaps(public, hybrid)
    for mixed in (enc[:split] + other[split:], other[:split] + enc[split:]):
        assert kem.decaps(secret, mixed, hybrid) != shared
    for bad in (enc[:-1], enc + b"\0", b""):
        with pytest.raises(EnvelopeError) as caught:
            kem.decaps(secret, bad, hybrid)
        assert caught.value.code is Code.DECRYPT


@pytest.mark.parametrize("hybrid", ["hqc-128+x25519", "sntrup-761+x25519"])
def test_combiners_without_a_proof_of_less_hash_everything(hybrid):
    """Public key and ciphertext of the post-quantum half enter the secret."""
    how = kem.HYBRIDS[hybrid]
    assert how.binds == "all"
    shared, cts, keys_ = [b"a" * 32, b"b" * 32], [b"c", b"d"], [b"e", b"f"]
    base = kem._combine(how, shared, cts, keys_)
    for i in range(2):
        for group in (shared, cts, keys_):
            changed = [list(g) for g in (shared, cts, keys_)]
            changed[(shared, cts, keys_).index(group)][i] = b"x" * len(group[i])
            assert kem._combine(how, *changed) != base


def test_one_key_serves_suites_of_one_scheme_only():
    assert suites.scheme_of((1, 2, 0x0101)) == "ml-dsa-65"
    with pytest.raises(EnvelopeError, match="need one scheme"):
        suites.scheme_of((1, 3))
    with pytest.raises(EnvelopeError, match="does not sign for these suites"):
        keys.enrol(helpers.identities()[0], (3,))
