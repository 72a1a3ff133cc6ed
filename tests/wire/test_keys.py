import copy
import pickle

import pytest

from qoejax.wire import keys
from qoejax.wire.errors import Code, EnvelopeError
from tests.wire.helpers import identities


def codes(function, *arguments, **more):
    with pytest.raises(EnvelopeError) as caught:
        function(*arguments, **more)
    return caught.value.code


def test_ids_are_the_start_of_the_hash_of_the_key():
    one = identities()[0]
    assert len(one.id) == keys.ID_SIZE
    assert one.id == keys.key_id(one.public) != identities()[1].id


@pytest.mark.parametrize("provider", ["pqcrypto", "openssl"])
def test_an_identity_shows_and_pickles_no_secret(provider):
    one = identities(provider, 1)[0]
    raw = one.secret.expose()
    for text in (repr(one), str(one), repr([one]), f"{one.secret}"):
        assert raw.hex()[:16] not in text
        assert repr(raw)[2:12] not in text
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            function(one)
    assert not hasattr(one, "__dict__")


def test_enrolment_needs_possession_of_the_key():
    one, two = identities()[:2]
    entry = keys.enrol(one, (1,))
    keys.register([entry], verifier="openssl")
    keys.register([entry], verifier="pqcrypto")
    stolen = entry._replace(public=two.public)
    for bad in (
        stolen,
        entry._replace(epoch=1),
        entry._replace(suites=(1, 2)),
        entry._replace(valid_to=5),
        entry._replace(proof=bytes(3309)),
        entry._replace(proof=b""),
    ):
        assert codes(keys.register, [bad], verifier="openssl") is Code.SIGNATURE
    assert codes(keys.register, [entry, entry], verifier="openssl") is Code.SENDER


def test_lookup_says_why_a_sender_may_not_send():
    one, stranger = identities()[:2]
    registry = keys.register([keys.enrol(one, (1,), 10, 20, epoch=3)], verifier="openssl")
    assert keys.lookup(registry, one.id, 3, 1, 10).public == one.public
    assert codes(keys.lookup, registry, stranger.id, 3, 1, 10) is Code.SENDER
    assert codes(keys.lookup, registry, one.id, 2, 1, 10) is Code.SENDER
    assert codes(keys.lookup, registry, one.id, 3, 2, 10) is Code.SENDER
    assert codes(keys.lookup, registry, one.id, 3, 1, 9) is Code.SENDER
    assert codes(keys.lookup, registry, one.id, 3, 1, 20) is Code.SENDER
    assert codes(keys.lookup, keys.revoke(registry, one.id), one.id, 3, 1, 10) is Code.REVOKED
    assert codes(keys.revoke, registry, stranger.id) is Code.SENDER


def test_registry_digest_covers_entries_and_revocations_but_not_proofs():
    one, two = identities()[:2]
    entries = [keys.enrol(one, (1,)), keys.enrol(two, (1,))]
    registry = keys.register(entries, verifier="openssl")
    again = keys.register([keys.enrol(two, (1,)), keys.enrol(one, (1,))], verifier="openssl")
    assert entries[0].proof != again.entries[one.id].proof
    assert keys.registry_digest(registry) == keys.registry_digest(again)
    others = [
        keys.revoke(registry, one.id),
        keys.register(entries[:1], verifier="openssl"),
        keys.register([keys.enrol(one, (1,), epoch=1), entries[1]], verifier="openssl"),
    ]
    digests = {keys.registry_digest(r) for r in [registry, *others]}
    assert len(digests) == 4


def test_clients_digest_ignores_order_only():
    ids = [one.id for one in identities()]
    assert keys.clients_digest(ids) == keys.clients_digest(reversed(ids))
    assert keys.clients_digest(ids) != keys.clients_digest(ids[:-1])
