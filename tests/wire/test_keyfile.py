import os
import stat
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qoejax.wire import cbor, keyfile
from qoejax.wire.keyfile import KeyFileError
from tests.wire.helpers import identities

PASS = b"correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(keyfile, "_COST", {"n": 1 << 10, "r": 8, "p": 1})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "clients.key"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("provider", ["pqcrypto", "openssl"])
@pytest.mark.parametrize("passphrase", [PASS, None])
def test_round_trip_with_narrow_modes(path, provider, passphrase):
    some = identities(provider, 2)
    old = os.umask(0)
    try:
        keyfile.save(path, some, passphrase, plain=passphrase is None)
    finally:
        os.umask(old)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert os.listdir(path.parent) == [path.name]
    found = keyfile.load(path, passphrase)
    assert [one.public for one in found] == [one.public for one in some]
    assert [one.secret for one in found] == [one.secret for one in some]
    assert {one.provider for one in found} == {provider}


def test_encrypted_files_hold_no_secret_in_the_clear(path):
    some = identities("pqcrypto", 2)
    keyfile.save(path, some, PASS)
    data = path.read_bytes()
    for one in some:
        assert one.secret.expose()[100:116] not in data
        assert one.public[:64] in data
    keyfile.save(path.with_name("plain.key"), some, None, plain=True)
    assert some[0].secret.expose() in path.with_name("plain.key").read_bytes()


def test_plain_files_must_be_asked_for(path):
    for passphrase, plain in ((None, False), (PASS, True), (b"", False)):
        with pytest.raises(KeyFileError, match="either a passphrase or plain=True"):
            keyfile.save(path, identities(), passphrase, plain=plain)
    assert not path.exists()


def test_existing_keys_are_never_overwritten(path):
    keyfile.save(path, identities(), PASS)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="File exists"):
        keyfile.save(path, identities(), PASS)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("wide", [0o640, 0o604, 0o660, 0o610])
def test_wide_modes_are_refused(path, wide):
    keyfile.save(path, identities(), PASS)
    path.chmod(wide)
    with pytest.raises(KeyFileError, match=rf"clients.key: mode {wide:04o}, expected 0600"):
        keyfile.load(path, PASS)
    path.chmod(0o600)
    path.parent.chmod(wide | 0o100)
    with pytest.raises(KeyFileError, match="expected 0700"):
        keyfile.load(path, PASS)
    with pytest.raises(KeyFileError, match="expected 0700"):
        keyfile.save(path.with_name("new.key"), identities(), PASS)
    path.parent.chmod(0o700)


def test_links_fifos_and_missing_files_are_refused(path):
    keyfile.save(path, identities(), PASS)
    link, fifo = path.with_name("link"), path.with_name("fifo")
    link.symlink_to(path)
    os.mkfifo(fifo, 0o600)
    with pytest.raises(KeyFileError, match="link: "):
        keyfile.load(link, PASS)
    with pytest.raises(KeyFileError, match="fifo: not a regular file"):
        keyfile.load(fifo, PASS)
    with pytest.raises(KeyFileError, match="No such file"):
        keyfile.load(path.with_name("none"), PASS)


def test_files_of_another_user_are_refused(path, monkeypatch):
    keyfile.save(path, identities(), PASS)
    monkeypatch.setattr(keyfile.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeyFileError, match="belongs to user"):
        keyfile.load(path, PASS)


def test_wrong_missing_and_needless_passphrases(path):
    keyfile.save(path, identities(), PASS)
    plain = path.with_name("plain.key")
    keyfile.save(plain, identities(), None, plain=True)
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        keyfile.load(path, b"wrong")
    with pytest.raises(KeyFileError, match="no passphrase was given"):
        keyfile.load(path)
    with pytest.raises(KeyFileError, match="not encrypted"):
        keyfile.load(plain, PASS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(at=st.integers(0, 2**20), flip=st.integers(1, 255), plain=st.booleans())
def test_any_altered_byte_is_noticed_and_nothing_else_escapes(path, at, flip, plain):
    passphrase = None if plain else PASS
    source = path.with_name(f"source-{plain}.key")
    if not source.exists():
        keyfile.save(source, identities("openssl", 1), passphrase, plain=plain)
    data = bytearray(source.read_bytes())
    data[at % len(data)] ^= flip
    target = path.with_name("altered.key")
    target.unlink(missing_ok=True)
    target.write_bytes(data)
    target.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        keyfile.load(target, passphrase)
    told = "".join(traceback.format_exception(caught.value))
    secret = identities("openssl", 1)[0].secret.expose()
    assert secret.hex()[:16] not in told
    assert repr(secret)[2:14] not in told


@pytest.mark.parametrize("cut", [0, 4, 8, 12, 100, -1])
def test_truncated_files_are_damaged(path, cut):
    keyfile.save(path, identities(), PASS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(KeyFileError, match=r"damaged|wrong passphrase"):
        keyfile.load(path, PASS)


@pytest.mark.parametrize("odd", [[7], [[b""]], ["text"]])
def test_what_is_no_bytes_is_no_key(path, odd):
    """A number would become as many zeros, and a large one all of memory."""
    one = identities("openssl", 1)[0]
    names = ("algorithm", "protection", "provider", "public")
    values = (one.scheme, "plain", one.provider, [one.public])
    packed = cbor.encode(dict(zip(names, values, strict=True)))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(b"QJXKEY1\n" + len(packed).to_bytes(4, "big") + packed + cbor.encode(odd))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="damaged"):
        keyfile.load(path)


def test_absurd_scrypt_parameters_are_not_tried(path, monkeypatch):
    keyfile.save(path, identities("openssl", 1), PASS)
    monkeypatch.setattr(keyfile, "_MOST", {"n": 1 << 9, "r": 8, "p": 4})
    with pytest.raises(KeyFileError, match="out of bounds"):
        keyfile.load(path, PASS)


def test_obtain_makes_keys_once_and_refuses_other_numbers(path):
    some = keyfile.obtain(path, "openssl", 2, PASS)
    again = keyfile.obtain(path, "openssl", 2, PASS)
    assert [one.id for one in some] == [one.id for one in again]
    with pytest.raises(KeyFileError, match=r"holds 2 keys of .'openssl'., expected 3 of 'openssl'"):
        keyfile.obtain(path, "openssl", 3, PASS)
    with pytest.raises(KeyFileError, match="expected 2 of 'pqcrypto'"):
        keyfile.obtain(path, "pqcrypto", 2, PASS)
    assert len(keyfile.obtain(None, "openssl", 2)) == 2


def test_identities_of_two_providers_do_not_share_a_file(path):
    mixed = identities("openssl", 1) + identities("pqcrypto", 1)
    with pytest.raises(KeyFileError, match="one provider"):
        keyfile.save(path, mixed, PASS)


@pytest.mark.parametrize("scheme", ["ml-dsa-87", "ml-dsa-65+ed25519", "ed25519"])
def test_keys_of_every_scheme_are_kept(tmp_path, scheme):
    path = tmp_path / "keys" / "some.key"
    made = keyfile.obtain(path, "openssl", 2, plain=True, scheme=scheme)
    found = keyfile.obtain(path, "openssl", 2, scheme=scheme)
    assert [(i.id, i.scheme) for i in found] == [(i.id, scheme) for i in made]
    with pytest.raises(keyfile.KeyFileError, match="expected ml-dsa-65"):
        keyfile.obtain(path, "openssl", 2)
