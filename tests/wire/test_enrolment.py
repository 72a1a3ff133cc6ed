"""Requests, rotation and the signed registry."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoejax.wire import authority, cbor, enrolment, keys, sign
from qoejax.wire.enrolment import Request, SignedRegistry
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire.helpers import identities

EMPTY = keys.Registry({}, frozenset())


@functools.cache
def root():
    """The authority's key pair (an SLH-DSA signature costs a quarter of a second)."""
    return sign.provider(authority.PROVIDER, authority.SCHEME).generate()


@functools.cache
def published():
    registry = enrolment.admit(EMPTY, enrolled(0), "openssl")
    registry = enrolment.admit(registry, enrolled(1), "openssl")
    return enrolment.publish(keys.revoke(registry, identities()[1].id), 3, *root())


@functools.cache
def enrolled(i, epoch=0):
    return Request(keys.enrol(identities()[i], (1,), epoch=epoch))


def code(function, *arguments, **more):
    with pytest.raises(EnvelopeError) as caught:
        function(*arguments, **more)
    return caught.value.code


def test_admission_needs_possession_and_happens_once():
    registry = enrolment.admit(EMPTY, enrolled(0), "openssl")
    assert set(registry.entries) == {identities()[0].id}
    assert code(enrolment.admit, registry, enrolled(0)) is Code.SENDER
    stolen = Request(enrolled(0).entry._replace(public=identities()[1].public))
    assert code(enrolment.admit, EMPTY, stolen) is Code.SIGNATURE


def test_rotation_is_signed_by_both_keys_and_retires_the_old_one():
    old, new, other = identities()[:3]
    registry = enrolment.admit(EMPTY, enrolled(0), "openssl")
    request = enrolment.rotate(old, new, 1, (1,))
    grown = enrolment.admit(registry, request, "openssl")
    assert keys.lookup(grown, new.id, 1, 1, 0).public == new.public
    assert code(keys.lookup, grown, old.id, 0, 1, 0) is Code.REVOKED
    for bad, want in (
        (request._replace(link=b""), Code.SIGNATURE),
        (request._replace(link=request.link[:-1] + b"\0"), Code.SIGNATURE),
        (enrolment.rotate(other, new, 1, (1,))._replace(replaces=old.id), Code.SIGNATURE),
        (enrolment.rotate(old, new, 2, (1,)), Code.POLICY),
        (enrolment.rotate(old, new, 0, (1,)), Code.POLICY),
        (enrolment.rotate(other, new, 1, (1,)), Code.SENDER),
    ):
        assert code(enrolment.admit, registry, bad, "openssl") is want
    # The link names the successor: it cannot be moved to another one's request.
    moved = enrolment.rotate(old, other, 1, (1,))._replace(link=request.link)
    assert code(enrolment.admit, registry, moved, "openssl") is Code.SIGNATURE
    gone = keys.revoke(registry, old.id)
    assert code(enrolment.admit, gone, request, "openssl") is Code.REVOKED


def test_only_the_authoritys_latest_registry_is_taken():
    signed = published()
    assert enrolment.check(signed, root()[0], 3, "openssl") == signed.registry
    assert code(enrolment.check, signed, root()[0], 4) is Code.REPLAY
    assert code(enrolment.check, signed, bytes(32)) is Code.SENDER
    for bad in (
        signed._replace(serial=4),
        signed._replace(registry=signed.registry._replace(revoked=frozenset())),
        signed._replace(registry=EMPTY),
        signed._replace(signature=bytes(7856)),
        signed._replace(signature=b""),
    ):
        assert code(enrolment.check, bad, root()[0]) is Code.SIGNATURE
    name, entry = next(iter(signed.registry.entries.items()))
    unproven = signed.registry._replace(
        entries=signed.registry.entries | {name: entry._replace(proof=b"")}
    )
    again = enrolment.publish(unproven, 3, *root())
    assert code(enrolment.check, again, root()[0]) is Code.SIGNATURE


def test_encodings_round_trip_and_have_one_form():
    signed = published()
    data = enrolment.pack_registry(signed)
    assert enrolment.parse_registry(data) == signed
    request = enrolment.rotate(*identities()[:2], 1, (1, 2))
    assert enrolment.parse_request(enrolment.pack_request(request)) == request
    for bad in (b"", data + b"\0", data[:-1], cbor.encode({}), cbor.encode([1])):
        assert code(enrolment.parse_registry, bad) is Code.FORMAT
        assert code(enrolment.parse_request, bad) is Code.FORMAT


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_bytes_only_envelope_errors_escape(data):
    whole = enrolment.pack_registry(published()), enrolment.pack_request(enrolled(0))
    which = data.draw(st.sampled_from([0, 1]))
    changed = bytearray(whole[which])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(changed) - 1, 2000)))
        changed[at] = data.draw(st.integers(0, 255))
    if bytes(changed) == whole[which]:
        return
    try:
        if which == 0:
            found = enrolment.parse_registry(bytes(changed))
            keys.registry_digest(found.registry)
        else:
            enrolment.admit(EMPTY, enrolment.parse_request(bytes(changed)), "openssl")
            raise AssertionError("a changed request was admitted")
    except EnvelopeError:
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [("serial", b""), ("authority", 1), ("signature", "text"), ("registry", [])],
)
def test_fields_of_another_type_are_named(name, value):
    signed = published()
    registry = {"entries": [], "revoked": []}
    fields = signed._asdict() | {"registry": registry} | {name: value}
    with pytest.raises(EnvelopeError, match=f"a registry: {name} is of another type"):
        enrolment.parse_registry(cbor.encode(fields))


def test_twice_enrolled_or_wrongly_revoked_is_no_registry():
    signed = published()
    entry = enrolment.pack_entry(next(iter(signed.registry.entries.values())))
    name = next(iter(signed.registry.entries))
    bad_ones = (
        ([entry, entry], []),
        ([entry], [bytes(16)]),
        ([{}], []),
        ([1], []),
        ([entry], [[]]),
        ([entry], [{}]),
        ([entry], [name, name]),
    )
    for entries, revoked in bad_ones:
        content = {"entries": entries, "revoked": revoked}
        bad = cbor.encode(SignedRegistry._asdict(signed) | {"registry": content})
        assert code(enrolment.parse_registry, bad) is Code.FORMAT
