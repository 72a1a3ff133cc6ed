"""Notes and cosignatures, among them one made by an independent implementation."""

import base64
import copy
import pathlib
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa

from qoejax.wire import sign
from qoejax.wire.log import note
from qoejax.wire.log.errors import LogError
from qoejax.wire.log.note import Checkpoint, Verifier
from tests.wire.log.helpers import key

HEAD = Checkpoint("example.org/log", 7, bytes(range(32)))

# Published with filippo.io/torchwood (Go), cmd/litewitness/testdata/mldsa.txt: the seed of the
# log's key, its key id, and the checkpoint that it signed with the timestamp 0.
SEED = bytes.fromhex("2886adc2b0eabfce67c0472939127998bf886cf256bfee8ba76a253fce1146e0")
PUBLISHED = pathlib.Path(__file__).parents[2] / "golden" / "tlog_mldsa44.txt"


def published():
    public = mldsa.MLDSA44PrivateKey.from_seed_bytes(SEED).public_key().public_bytes_raw()
    return Verifier("example.com/mldsa-log", public)


@pytest.mark.parametrize("provider", sorted(sign.PROVIDERS))
def test_a_published_cosignature_verifies(provider):
    log = published()
    assert log.key_id.hex() == "b5df45c5"
    assert log.vkey.startswith("example.com/mldsa-log+b5df45c5+BuhtcL97l3dcitjZ8Y9J54gmQ1TWn/BM")
    found = note.parse(PUBLISHED.read_text())
    assert found.checkpoint.size == 1
    assert note.verify(found, log, provider) == 0
    with pytest.raises(LogError, match="size 2 does not verify"):
        note.verify(note.parse(PUBLISHED.read_text().replace("\n1\n", "\n2\n")), log, provider)


@pytest.mark.parametrize("signer", sorted(sign.PROVIDERS))
@pytest.mark.parametrize("verifier", sorted(sign.PROVIDERS))
def test_providers_verify_each_other(signer, verifier):
    one = key("example.org/log", signer)
    signed = note.assemble(HEAD, one.line(HEAD, 1_800_000_000))
    assert note.verify(signed, one.verifier, verifier) == 1_800_000_000


def test_the_signed_message_byte_by_byte():
    message = note.cosigned_message("w1", 5, HEAD)
    assert message == (
        b"subtree/v1\n\0" + b"\x02w1" + bytes(7) + b"\5" + b"\x0fexample.org/log"
        + bytes(8) + bytes(7) + b"\7" + bytes(range(32))
    )  # fmt: skip


def flips(text, step):
    """The text with single bits of single bytes flipped, as far as it stays UTF-8."""
    data = text.encode()
    for at in range(0, len(data), step):
        for bit in (0, 5):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            try:
                yield changed.decode()
            except UnicodeDecodeError:
                continue


def survives(text, log, witness):
    """Whether a changed note still has both signatures, verified."""
    try:
        found = note.parse(text)
        return (
            note.verify(found, log.verifier) is not None
            and note.verify(found, witness.verifier) is not None
        )
    except LogError:
        return False


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_survives(step):
    log, witness = key(), key("example.org/w")
    text = note.assemble(HEAD, log.line(HEAD, 7) + witness.line(HEAD, 8)).text
    assert survives(text, log, witness)
    assert not any(survives(changed, log, witness) for changed in flips(text, step))
    front = text[: text.index("— ") + 30]
    assert not any(survives(c + text[len(front) :], log, witness) for c in flips(front, 1))


def test_lines_of_strangers_are_ignored_and_lies_are_not():
    log, witness, other = key(), key("example.org/w"), key("example.org/other")
    signed = note.assemble(HEAD, log.line(HEAD, 7) + other.line(HEAD, 8))
    assert note.verify(signed, log.verifier) == 7
    assert note.verify(signed, witness.verifier) is None
    # A known name and id over another signature: the whole note is refused.
    theirs = note.unbase64(other.line(HEAD, 8).split(" ")[2][:-1])
    forged = witness.verifier.key_id + theirs[4:]
    line = f"— example.org/w {base64.b64encode(forged).decode()}\n"
    with pytest.raises(LogError, match=r"the signature of example.org/w on the checkpoint"):
        note.verify(note.assemble(HEAD, line), witness.verifier)
    with pytest.raises(LogError, match="twice"):
        note.verify(note.assemble(HEAD, 2 * log.line(HEAD, 7)), log.verifier)


def test_a_cosignature_names_its_signer_and_its_log():
    """The same key under another name, or for another origin, signs something else."""
    one = key("example.org/w")
    value = note.unbase64(one.line(HEAD, 8).split(" ")[2][:-1])
    renamed = Verifier("example.org/x", one.verifier.public)
    line = f"— example.org/x {base64.b64encode(renamed.key_id + value[4:]).decode()}\n"
    with pytest.raises(LogError, match="does not verify"):
        note.verify(note.assemble(HEAD, line), renamed)
    moved = HEAD._replace(origin="example.org/other")
    with pytest.raises(LogError, match="does not verify"):
        note.verify(note.assemble(moved, one.line(HEAD, 8)), one.verifier)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("\n7\n", "\n07\n"), "not a plain decimal"),
        (lambda t: t.replace("\n7\n", "\n-7\n"), "not a plain decimal"),
        (lambda t: t.replace("\n7\n", f"\n{2**63}\n"), "too large"),
        (lambda t: t.replace("\n\n", "\nextension\n\n"), "three lines"),
        (lambda t: t.replace("\n\n", "\n"), "an empty line"),
        (lambda t: t[:-1], "an empty line and signature lines"),
        (lambda t: t + "x\n", "not a signature line"),
        (lambda t: t.replace("— ", "- "), "not a signature line"),
        (lambda t: t.replace("\n7\n", "\r\n7\n"), "control characters"),
        (lambda t: t + "— a AAAA\n", "too short"),
        (lambda t: t + "— a+b AAAAAAAA\n", "no plus"),
        (lambda t: t.replace("Hh8=", "Hh8"), "not base64"),
        (lambda t: "x" * note.MAX_NOTE + t, "at most"),
    ],
)
def test_what_is_no_note_is_refused(change, message):
    text = note.assemble(HEAD, key().line(HEAD, 7)).text
    assert change(text) != text
    with pytest.raises(LogError, match=message):
        note.parse(change(text))


def test_vkeys_round_trip_and_are_checked():
    one = key().verifier
    assert note.parse_vkey(one.vkey) == one
    name, given, encoded = one.vkey.split("+", 2)
    for bad, message in (
        (f"{name}+{given}", "NAME.ID.KEY"),
        (f"{name}+00000000+{encoded}", "id '00000000', expected"),
        (f"{name}+{given}+AAAA", "type 0x06"),
        (f" +{given}+{encoded}", "no spaces"),
    ):
        with pytest.raises(LogError, match=message):
            note.parse_vkey(bad)


@pytest.mark.parametrize("provider", sorted(sign.PROVIDERS))
def test_a_cosigner_shows_and_pickles_no_secret(provider):
    public, secret = sign.provider(provider, note.SCHEME).generate()
    one = note.Cosigner("example.org/w", provider, public, secret)
    assert secret.expose().hex()[:16] not in repr(one)
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            function(one)
    assert not hasattr(one, "__dict__")
