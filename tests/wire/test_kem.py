import hashlib
import pickle

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from pqcrypto.kem import ml_kem_768

from qoejax.wire import kem, primitives
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.secret import Secret
from tests.wire import mlkem_reference, vectors

KAT = vectors.rsp("asymmetric/MLKEM/kat_MLKEM_768.rsp", 40)
CLASSICAL = [
    v
    for v in vectors.hpke("test-vectors.json")
    if v["mode"] == 0 and v["kdf_id"] == 1 and v["aead_id"] != 0xFFFF
]
POSTQUANTUM = [v for v in vectors.hpke("hpke-pq-test-vectors.json") if v["kem_id"] == 0x647A]


def b(text: str) -> bytes:
    return bytes.fromhex(text)


def xwing_secret(seed: bytes, public: bytes) -> Secret:
    """Secret key of an X-Wing seed: SHAKE-256 gives d, z and the X25519 scalar."""
    wide = hashlib.shake_256(seed).digest(96)
    dk = mlkem_reference.decapsulation_key(wide[:32], wide[32:64], public[:1184])
    return Secret(dk + wide[64:] + public[1184:])


def test_mlkem_known_answers_and_implicit_rejection():
    assert len(KAT) == 40
    for entry in KAT:
        assert ml_kem_768.decaps(entry["sk"], entry["ct"]) == entry["ss"]
        assert ml_kem_768.decaps(entry["sk"], entry["ct_n"]) == entry["ss_n"]


def test_reference_key_expansion_matches_known_answers():
    for entry in KAT[:4]:
        found = mlkem_reference.decapsulation_key(entry["d"], entry["z"], entry["pk"])
        assert found == entry["sk"]


@pytest.mark.parametrize("vector", POSTQUANTUM, ids=lambda v: f"kdf{v['kdf_id']}")
def test_xwing_shared_secret_of_published_vectors(vector):
    public = b(vector["pkRm"])
    assert len(public) == kem.PUBLIC_SIZE
    shared = kem.decaps(xwing_secret(b(vector["skRm"]), public), b(vector["enc"]))
    assert shared == Secret(b(vector["shared_secret"]))


def test_there_are_vectors_for_every_part():
    assert len(POSTQUANTUM) == 2
    assert {v["aead_id"] for v in CLASSICAL} == {1, 2, 3}


@pytest.mark.parametrize(
    "vector",
    CLASSICAL + [v for v in POSTQUANTUM if v["kdf_id"] == 1],
    ids=lambda v: f"kem{v['kem_id']:x}-aead{v['aead_id']}",
)
def test_key_schedule_first_message_and_exports(vector):
    context = kem.key_schedule(
        Secret(b(vector["shared_secret"])),
        b(vector["info"]),
        vector["kem_id"],
        vector["aead_id"],
        key_size=len(b(vector["key"])),
    )
    assert context.key == Secret(b(vector["key"]))
    assert context.base_nonce == b(vector["base_nonce"])
    assert context.exporter == Secret(b(vector["exporter_secret"]))
    for case in vector["exports"]:
        value = kem.export(context, b(case["exporter_context"]), case["L"])
        assert value == Secret(b(case["exported_value"]))
    if vector["aead_id"] in kem.AEADS:
        first = vector["encryptions"][0]
        cipher = kem.AEADS[vector["aead_id"]](context.key.expose())
        opened = cipher.decrypt(context.base_nonce, b(first["ct"]), b(first["aad"]))
        assert opened == b(first["pt"])


@pytest.mark.parametrize(("aead", "name"), [(2, "AES_256_GCM"), (3, "CHACHA20_POLY1305")])
def test_stock_hpke_and_ours_open_each_other(aead, name):
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, getattr(hpke.AEAD, name))
    m, x = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    theirs = hpke.MLKEM768X25519PrivateKey(m, x)
    pk_m, pk_x = m.public_key().public_bytes_raw(), x.public_key().public_bytes_raw()
    enc, shared = kem.encaps(pk_m + pk_x)
    context = kem.key_schedule(shared, b"info", aead_id=aead)
    assert suite.decrypt(enc + kem.aead_seal(context, aead, b"text"), theirs, b"info") == b"text"

    seed = m.private_bytes_raw()
    dk = mlkem_reference.decapsulation_key(seed[:32], seed[32:], pk_m)
    data = suite.encrypt(b"back", theirs.public_key(), b"info")
    shared = kem.decaps(Secret(dk + x.private_bytes_raw() + pk_x), data[: kem.ENC_SIZE])
    context = kem.key_schedule(shared, b"info", aead_id=aead)
    assert kem.aead_open(context, aead, data[kem.ENC_SIZE :]) == b"back"


def test_a_wrong_ciphertext_is_refused_only_as_decrypt():
    public, secret = kem.keygen()
    enc, shared = kem.encaps(public)
    assert kem.decaps(secret, enc) == shared
    bad = bytes([enc[0] ^ 1]) + enc[1:]
    assert kem.decaps(secret, bad) != shared  # implicit rejection
    for broken in (enc[:-1], enc[:1088] + bytes(32)):
        with pytest.raises(EnvelopeError, match="does not open") as caught:
            kem.decaps(secret, broken)
        assert caught.value.code is Code.DECRYPT


@pytest.mark.parametrize("public", [b"short", b"\xff" * 1216, None])
def test_encapsulating_to_an_invalid_key_is_refused(public):
    if public is None:  # a low-order X25519 point
        public = kem.keygen()[0][:1184] + bytes(32)
    with pytest.raises(EnvelopeError) as caught:
        kem.encaps(public)
    assert caught.value.code is Code.FORMAT


def test_lack_of_randomness_is_reported(monkeypatch):
    def fail(n):
        raise OSError("no entropy")

    monkeypatch.setattr(primitives.os, "urandom", fail)
    with pytest.raises(EnvelopeError) as caught:
        kem.keygen()
    assert caught.value.code is Code.RNG


def test_secrets_are_neither_shown_nor_pickled():
    _, secret = kem.keygen()
    context = kem.key_schedule(secret, b"")
    for text in (repr(secret), str(secret), repr(context), f"{context}"):
        assert secret.expose().hex()[:16] not in text
        assert context.key.expose().hex()[:16] not in text
        assert repr(context.key.expose())[2:12] not in text
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(secret)
    with pytest.raises(TypeError, match="not hashable"):
        hash(secret)
    assert not hasattr(secret, "__dict__")
