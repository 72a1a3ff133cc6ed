"""experiments.keys: the whole life of a key, and bad input."""

import json
import stat

import pytest

from qoejax.run import enrol
from qoejax.run.errors import RunError
from qoejax.wire import keyfile, keys
from tests.run.test_commands import run as command
from tests.wire import helpers


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(keyfile, "_COST", {"n": 1 << 10, "r": 8, "p": 1})
    monkeypatch.setenv(enrol.PASSPHRASE, "correct horse")
    helpers.quick_authority(monkeypatch)
    monkeypatch.setitem(enrol.KINDS, "authority", helpers.QUICK)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The authority's key: encrypted, in its own folder."""
    path = tmp_path_factory.mktemp("authority") / "keys" / "root.key"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(enrol.PASSPHRASE, "correct horse")
        patch.setitem(enrol.KINDS, "authority", helpers.QUICK)
        enrol.create(path, "authority", "pqcrypto", False)
    return path


def test_the_life_of_a_key(tmp_path, root):
    folder, registry = tmp_path / "keys", tmp_path / "registry"
    for name in ("a", "b"):
        found = enrol.create(folder / f"{name}.key", "identity", "openssl", False)
        assert found["protection"] == "scrypt-aes256gcm"
        assert stat.S_IMODE((folder / f"{name}.key").stat().st_mode) == 0o600
    enrol.request(folder / "a.key", tmp_path / "a.request", keys.FOREVER, False)
    first = enrol.enrol(root, registry, tmp_path / "a.request", False)
    assert first["serial"] == 1
    moved = enrol.rotate(
        folder / "a.key", folder / "b.key", tmp_path / "b.request", registry, keys.FOREVER, False
    )
    assert (moved["replaces"], moved["epoch"]) == (first["id"], 1)
    second = enrol.enrol(root, registry, tmp_path / "b.request", False)
    assert second["serial"] == 2
    enrol.revoke(root, registry, second["id"], False)
    shown = enrol.show(registry, enrol.inspect(root)["public"][0])
    assert (shown["serial"], shown["trusted"]) == (3, True)
    assert {c["id"]: c["revoked"] for c in shown["clients"]} == {
        first["id"]: True, second["id"]: True
    }  # fmt: skip
    with pytest.raises(RunError, match="is revoked already"):
        enrol.revoke(root, registry, second["id"], False)
    with pytest.raises(RunError, match="is enrolled already"):
        enrol.enrol(root, registry, tmp_path / "b.request", False)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [".registry.lock"]


def test_no_secret_is_shown_and_wrong_passphrases_are_noticed(tmp_path, monkeypatch):
    path = tmp_path / "keys" / "w.key"
    made = enrol.create(path, "cosigner", "openssl", False)
    _, pairs = keyfile.load_pairs(path, "ml-dsa-44", b"correct horse")
    secret = pairs[0].secret.expose()
    for text in (
        repr(made),
        repr(pairs),
        str(enrol.inspect(path)),
        repr(enrol.check_key(path, False)),
    ):
        assert secret.hex()[:16] not in text
    monkeypatch.setenv(enrol.PASSPHRASE, "battery staple")
    with pytest.raises(RunError, match="wrong passphrase") as caught:
        enrol.check_key(path, False)
    assert caught.value.__suppress_context__
    with pytest.raises(RunError, match="encrypted, and no passphrase was given"):
        enrol.check_key(path, True)
    monkeypatch.delenv(enrol.PASSPHRASE)
    with pytest.raises(RunError, match="QOEJAX_PASSPHRASE is not set"):
        enrol.check_key(path, False)
    assert enrol.inspect(path) == made


def test_an_authority_does_not_take_anothers_registry(tmp_path, root):
    registry = tmp_path / "registry"
    enrol.create(tmp_path / "keys" / "a.key", "identity", "openssl", False)
    enrol.create(tmp_path / "keys" / "other.key", "authority", "pqcrypto", False)
    enrol.request(tmp_path / "keys" / "a.key", tmp_path / "r", keys.FOREVER, False)
    enrol.enrol(root, registry, tmp_path / "r", False)
    before = registry.read_bytes()
    with pytest.raises(RunError, match="signed by another authority"):
        enrol.revoke(tmp_path / "keys" / "other.key", registry, "00" * 16, False)
    data = bytearray(before)
    data[100] ^= 1
    registry.write_bytes(data)
    with pytest.raises(RunError, match=r"registry: (FORMAT|SIGNATURE|SENDER)"):
        enrol.show(registry, "")
    registry.write_bytes(before)
    with pytest.raises(RunError, match="signed by another authority"):
        enrol.show(registry, "00" * 32)
    assert registry.read_bytes() == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: enrol.create(d / "k" / "x", "king", "openssl", True), "kind 'king': expected"),
        (lambda d: enrol.create(d / "k" / "x", "identity", "rsa", True), "signer 'rsa': expected"),
        (lambda d: enrol.inspect(d / "none"), "No such file"),
        (lambda d: enrol.create(d / "k" / "x", "identity", "openssl", True, 9), "suite 0x0009 is"),
        (lambda d: enrol.show(d / "none", ""), "expected a registry"),
        (lambda d: enrol.revoke(d / "k", d / "r", "xyz", True), "expected 32 hexadecimal digits"),
        (lambda d: enrol.enrol(d / "k", d / "no" / "r", d / "q", True), "is no folder"),
        (lambda d: enrol.vkey(d / "k" / "a.key", "w"), "only cosigners have a vkey"),
        (lambda d: enrol.create(d / "k" / "a.key", "identity", "openssl", True), "overwritten"),
        (
            lambda d: enrol.request(d / "k" / "c.key", d / "o", 0, True),
            "does not sign for these suites",
        ),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, call, message):
    enrol.create(tmp_path / "k" / "a.key", "identity", "openssl", True)
    enrol.create(tmp_path / "k" / "c.key", "cosigner", "openssl", True)
    (tmp_path / "k" / "junk").write_bytes(b"junk")
    with pytest.raises(RunError, match=message):
        call(tmp_path)
    assert not (tmp_path / "o").exists()


def test_the_command_prints_one_line_and_fails_in_one_sentence(tmp_path):
    done = command("keys", "create", f"--key={tmp_path / 'k' / 'a.key'}", "--signer=openssl",
                   "--kind=cosigner", "--name=example.org/w", "--plain")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["vkey"].startswith("example.org/w+")
    assert found["protection"] == "plain"
    for args, message in (
        ((), "expected a command: create, inspect"),
        (("burn",), "unknown command 'burn'"),
        (("inspect",), "expected --key"),
    ):
        done = command("keys", *args)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines() == [done.stderr.strip()]
        assert message in done.stderr
