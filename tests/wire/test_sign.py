import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoejax.wire import provider_pqcrypto as vendor
from qoejax.wire import sign
from qoejax.wire.errors import Code
from qoejax.wire.secret import Secret
from tests.wire import helpers, vectors

KAT = vectors.rsp("asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp", 25)
NAMES = sorted(sign.PROVIDERS)


@pytest.mark.parametrize("name", NAMES)
def test_published_signatures_verify_and_altered_ones_do_not(name):
    verify = sign.provider(name).verify
    assert len(KAT) == 25
    for entry in KAT:
        signature, message = entry["sm"][:3309], entry["msg"]
        context = entry["ctx"]
        if len(context) > sign.MAX_CONTEXT:
            continue
        assert verify(entry["pk"], message, signature, context)
        assert not verify(entry["pk"], message + b"\0", signature, context)
        assert not verify(entry["pk"], message, signature, context + b"\0")


def test_openssl_makes_published_public_keys():
    for entry in KAT[:5]:
        assert sign.provider("openssl").matches(entry["pk"], Secret(entry["xi"]))


def test_pqcrypto_signs_with_published_expanded_keys():
    entry = KAT[0]
    one = sign.provider("pqcrypto")
    assert one.matches(entry["pk"], Secret(entry["sk"]))
    signature = one.signer(Secret(entry["sk"]))(b"m", b"c")
    assert sign.provider("openssl").verify(entry["pk"], b"m", signature, b"c")


@pytest.mark.parametrize("name", NAMES)
@given(message=st.binary(max_size=64), context=st.binary(max_size=sign.MAX_CONTEXT))
def test_each_provider_verifies_the_others_signatures(name, message, context):
    identity = helpers.identities(name, 1)[0]
    signature = identity.sign(message, context)
    assert len(signature) == sign.SIGNATURE_SIZE
    for other in NAMES:
        assert sign.provider(other).verify(identity.public, message, signature, context)
        altered = context[:-1] if context else b"x"
        assert not sign.provider(other).verify(identity.public, message, signature, altered)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [sign.MAX_CONTEXT + 1, 255, 256])
def test_contexts_that_one_provider_refuses_are_refused_by_both(name, size):
    identity = helpers.identities(name, 1)[0]
    with pytest.raises(ValueError, match="at most 253 bytes"):
        identity.sign(b"m", bytes(size))
    with pytest.raises(ValueError, match="at most 253 bytes"):
        sign.provider(name).verify(identity.public, b"m", bytes(3309), bytes(size))


@pytest.mark.parametrize("name", NAMES)
def test_malformed_keys_and_signatures_are_merely_invalid(name):
    identity = helpers.identities(name, 1)[0]
    signature = identity.sign(b"m", b"")
    verify = sign.provider(name).verify
    assert not verify(identity.public[:-1], b"m", signature, b"")
    assert not verify(identity.public, b"m", signature[:-1], b"")
    assert not verify(b"\xff" * 1952, b"m", signature, b"")
    assert not verify(identity.public, b"m", b"\xff" * 3309, b"")


class Flaky:
    """A signer that gives up a number of times before it succeeds."""

    ALGORITHM = "MlDsa65"
    SECRET_KEY_SIZE = 4032

    def __init__(self, failures: int, message: str):
        self.left, self.calls, self.message = failures, 0, message

    def sign(self, *arguments):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise ValueError(self.message)
        return b"signature"


EXHAUSTED = "signing failed (rejection sampling exhausted)"


def test_signing_is_tried_again_when_the_signer_gives_up():
    secret = helpers.identities("pqcrypto", 1)[0].secret
    flaky = Flaky(vendor.ATTEMPTS - 1, EXHAUSTED)
    assert vendor.signer(flaky, secret)(b"m", b"") == b"signature"
    assert flaky.calls == vendor.ATTEMPTS


@pytest.mark.parametrize(
    ("message", "error", "calls", "match"),
    [
        (EXHAUSTED, Code.SIGN_EXHAUSTED, vendor.ATTEMPTS, "gave up 8 times"),
        ("random number generation failed", Code.RNG, 1, "random number"),
        ("internal invariant failure", None, 1, "internal invariant"),
    ],
)
def test_other_failures_and_too_many_are_reported(message, error, calls, match):
    secret = helpers.identities("pqcrypto", 1)[0].secret
    flaky = Flaky(1000, message)
    with pytest.raises(ValueError, match=match) as caught:
        vendor.signer(flaky, secret)(b"m", b"")
    assert getattr(caught.value, "code", None) is error
    assert flaky.calls == calls


@pytest.mark.parametrize("name", NAMES)
def test_consistency_notices_halves_of_two_keys(name):
    one, two = helpers.identities(name, 2)
    assert sign.consistent(name, one.public, one.secret)
    assert not sign.consistent(name, one.public, two.secret)


def test_unknown_provider_and_wrong_secret_are_named():
    with pytest.raises(ValueError, match=r"'gpg' is none of \['openssl', 'pqcrypto'\]"):
        sign.provider("gpg")
    with pytest.raises(ValueError, match="has 4032 bytes"):
        sign.provider("pqcrypto").signer(Secret(b"short"))
