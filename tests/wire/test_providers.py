"""Both providers against published vectors, against each other, and made to fail."""

import pytest

from qoejax.wire import kem, provider_openssl, providers, sign
from qoejax.wire.errors import EnvelopeError
from qoejax.wire.primitives import SelfTestError
from qoejax.wire.secret import Secret
from tests.wire import slh_dsa_reference, sntrup_reference, vectors

PAIRS = [(n, a) for n, one in providers.PROVIDERS.items() for a in (*one.kems, *one.signatures)]
KEMS = [(n, a) for n, a in PAIRS if a.startswith("ml-kem")]
DSAS = [(n, a) for n, a in PAIRS if a.startswith("ml-dsa")]


def mlkem(algorithm):
    return vectors.rsp(f"asymmetric/MLKEM/kat_MLKEM_{algorithm.rpartition('-')[2]}.rsp", 30)


def mldsa(algorithm):
    entries = vectors.rsp(f"asymmetric/MLDSA/kat_MLDSA_{algorithm[-2:]}_det_pure.rsp", 15)
    return [entry for entry in entries if len(entry["ctx"]) <= sign.MAX_CONTEXT]


@pytest.mark.parametrize(("name", "algorithm"), KEMS)
def test_ml_kem_vectors_and_implicit_rejection(name, algorithm):
    one = providers.kem(name, algorithm)
    for entry in mlkem(algorithm):
        key = entry["sk"] if one.form == "sk" else entry["d"] + entry["z"]
        assert one.decaps(key, entry["ct"]) == entry["ss"]
        assert one.decaps(key, entry["ct_n"]) == entry["ss_n"]
        assert one.public_size == len(entry["pk"])
        assert one.ciphertext_size == len(entry["ct"])


@pytest.mark.parametrize(("name", "algorithm"), DSAS)
def test_ml_dsa_vectors(name, algorithm):
    one = providers.signature(name, algorithm)
    entries = mldsa(algorithm)
    assert len(entries) > 10
    for entry in entries:
        signature, message = entry["sm"][: one.signature_size], entry["msg"]
        key = Secret(entry["sk"] if one.form == "sk" else entry["xi"])
        assert one.matches(entry["pk"], key)
        assert one.verify(entry["pk"], message, signature, entry["ctx"])
        assert not one.verify(entry["pk"], message + b"\0", signature, entry["ctx"])
        assert not one.verify(entry["pk"], message, signature, entry["ctx"] + b"\0")
    made = one.signer(key)(b"m", b"c")
    for other in providers.PROVIDERS:
        assert providers.signature(other, algorithm).verify(entry["pk"], b"m", made, b"c")


def test_a_multiple_of_q_is_no_encapsulation_key():
    """FIPS 203, section 7.2: coefficients are below q; both providers check."""
    for name in providers.PROVIDERS:
        one = providers.kem(name, "ml-kem-768")
        public, _ = one.keygen()
        with pytest.raises(EnvelopeError, match="FORMAT"):
            one.encaps(b"\xff\xff\xff" + public[3:])


@pytest.mark.parametrize(("name", "algorithm"), PAIRS)
def test_every_primitive_passes_its_own_test(name, algorithm):
    get = providers.kem if algorithm in providers.PROVIDERS[name].kems else providers.signature
    assert get(name, algorithm) is get(name, algorithm)


@pytest.mark.parametrize("algorithm", sorted({a for _, a in PAIRS} - {"slh-dsa-sha2-128s"}))
def test_providers_agree_both_ways(algorithm):
    providers.agree(algorithm)


def test_every_primitive_has_a_known_answer():
    assert {a for _, a in PAIRS} == set(providers.known_answers())


def broken_kem():
    one = providers.kem("openssl", "ml-kem-768")
    yield "known answer", one._replace(opener=lambda key: lambda ct: bytes(32))
    yield "of sizes", one._replace(keygen=lambda: (one.keygen()[0] + b"\0", one.keygen()[1]))
    yield "agree with itself", one._replace(encaps=lambda public: (one.encaps(public)[0], b""))


@pytest.mark.parametrize(("why", "one"), list(broken_kem()), ids=lambda value: str(value)[:12])
def test_a_broken_kem_is_noticed(why, one):
    with pytest.raises(SelfTestError, match=why):
        providers.check_kem("it", one, providers.known_answers()["ml-kem-768"])


def broken_signature():
    one = providers.signature("openssl", "ml-dsa-65")
    yield "published key pair", one._replace(matches=lambda *a: False)
    yield "refuses a signature", one._replace(verify=lambda *a: False)
    yield "another message", one._replace(verify=lambda *a: True)
    other = one.generate()[1]
    wrong = one._replace(signer=lambda secret: one.signer(other))
    yield "its own signature", wrong


@pytest.mark.parametrize(
    ("why", "one"), list(broken_signature()), ids=lambda value: str(value)[:12]
)
def test_a_broken_signature_is_noticed(why, one):
    with pytest.raises(SelfTestError, match=why):
        providers.check_signature("it", one, providers.known_answers()["ml-dsa-65"])


def test_a_provider_that_disagrees_with_the_others_is_noticed(monkeypatch):
    one = providers.provider("openssl")
    odd = one.signatures["ml-dsa-65"]._replace(verify=lambda *a: False)
    signature = providers.signature
    monkeypatch.setattr(
        providers, "signature", lambda n, a: odd if n == "openssl" else signature(n, a)
    )
    with pytest.raises(SelfTestError, match="and openssl disagree on ml-dsa-65"):
        providers.agree("ml-dsa-65")


def test_what_a_provider_lacks_is_named_with_who_has_it():
    with pytest.raises(ValueError, match=r"openssl has no hqc-128: expected one of \['pqcrypto'\]"):
        providers.kem("openssl", "hqc-128")
    with pytest.raises(ValueError, match="openssl has no slh-dsa-sha2-128f"):
        sign.provider("openssl", "slh-dsa-sha2-128f")
    with pytest.raises(ValueError, match="scheme 'rsa' is none of"):
        sign.provider("openssl", "rsa")


def test_secret_keys_of_the_wrong_form_are_refused():
    for name, size in (("pqcrypto", 4032), ("openssl", 32)):
        with pytest.raises(ValueError, match=f"has {size} bytes, got 7"):
            sign.provider(name).signer(Secret(bytes(7)))


def test_a_compressed_point_is_no_second_encoding():
    one = providers.kem("openssl", "p384")
    public, secret = one.keygen()
    compressed = bytes([2 + public[-1] % 2]) + public[1:49]
    with pytest.raises(EnvelopeError, match="FORMAT"):
        one.encaps(compressed)
    with pytest.raises(ValueError, match="97 bytes"):
        one.decaps(secret.expose(), compressed)
    assert provider_openssl.KEMS["p384"].public_size == 97


@pytest.mark.parametrize("scheme", sign.SCHEMES)
def test_sizes_of_schemes(scheme):
    name = "openssl" if scheme.startswith(("ml", "ed")) else "pqcrypto"
    one = sign.provider(name, scheme)
    assert (one.public_size, one.signature_size) == sign.SIZES[scheme]


def test_two_signatures_must_both_hold():
    one = sign.provider("openssl", "ml-dsa-65+ed25519")
    public, secret = one.generate()
    made = one.signer(secret)(b"m", b"c")
    other = one.signer(one.generate()[1])(b"m", b"c")
    assert one.verify(public, b"m", made, b"c")
    assert not one.verify(public, b"m", made[:3309] + other[3309:], b"c")
    assert not one.verify(public, b"m", other[:3309] + made[3309:], b"c")
    assert not one.verify(public, b"m", made, b"d")
    assert not one.verify(public, b"m", made[:-1], b"c")
    assert not one.verify(public[:-1], b"m", made, b"c")
    assert one.matches(public, secret)
    halves = Secret(secret.expose()[:32] + one.generate()[1].expose()[32:])
    assert not one.matches(public, halves)
    # The Ed25519 half signs for nothing but this project, context included.
    assert not sign.provider("openssl", "ed25519").verify(public[1952:], b"cm", made[3309:], b"")


def test_self_tests_run_for_every_scheme_and_hybrid():
    for hybrid in kem.HYBRIDS:
        kem.self_test(hybrid)
    sign.self_test("pqcrypto", "slh-dsa-sha2-128f")
    sign.self_test("openssl", "ml-dsa-65+ed25519")


SLH = [
    ("slh-dsa-sha2-128f", slh_dsa_reference.SHA2_128F),
    ("slh-dsa-sha2-128s", slh_dsa_reference.SHA2_128S),
]


@pytest.mark.parametrize(("algorithm", "parameters"), SLH)
def test_slh_dsa_signatures_verify_by_the_standard(algorithm, parameters):
    """Against a verifier written from FIPS 205, with a key that NIST published."""
    answer = providers.known_answers()[algorithm]
    one = providers.signature("pqcrypto", algorithm)
    sign_with = one.signer(Secret(answer["sk"]))
    for message, context in ((b"", b""), (bytes(500), bytes(253))):
        made = sign_with(message, context)
        check = slh_dsa_reference.verify
        assert check(parameters, answer["pk"], message, made, context)
        assert not check(parameters, answer["pk"], message + b"\0", made, context)
        assert not check(parameters, answer["pk"], message, made, context[1:] + b"x")
        for place in (0, 20, len(made) // 2, len(made) - 1):
            bad = made[:place] + bytes([made[place] ^ 1]) + made[place + 1 :]
            assert not check(parameters, answer["pk"], message, bad, context)
            assert not one.verify(answer["pk"], message, bad, context)


def test_sntrup_by_its_specification_and_implicit_rejection():
    """Against a decapsulation written from the specification; fresh keys, good and bad bytes."""
    one = providers.kem("pqcrypto", "sntrup-761")
    public, secret = one.keygen()
    key = secret.expose()
    for _ in range(4):
        ciphertext, shared = one.encaps(public)
        assert sntrup_reference.decaps(key, ciphertext) == shared
        for place in (0, 500, 1006, 1007, 1038):
            bad = ciphertext[:place] + bytes([ciphertext[place] ^ 1]) + ciphertext[place + 1 :]
            rejected = one.decaps(key, bad)
            assert rejected == sntrup_reference.decaps(key, bad) != shared
