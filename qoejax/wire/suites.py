"""The suites: what each number in a header stands for. A run has one; nothing is negotiated."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from qoejax.wire import providers, sign
from qoejax.wire.errors import Code, EnvelopeError
from qoejax.wire.kem import HYBRIDS

Status = Literal["standard", "experimental", "classical", "plaintext"]


class Suite(NamedTuple):
    """Algorithms and sizes of one suite.

    Attributes:
        id: number in the header.
        name: in words.
        kem: of ``kem.HYBRIDS``; empty for plaintext.
        kdf_id: HPKE number of the key derivation.
        aead_id: HPKE number of the cipher.
        scheme: of ``sign.SCHEMES``, with which identities sign.
        enc_size: bytes of an encapsulation.
        signature_size: bytes of the signature in an UPDATE.
        tag_size: bytes of the AEAD's tag.
        status: "experimental" ones rest on a KEM that no final standard holds; "classical" falls to
            a quantum computer and is there to be measured; both that and "plaintext" are refused
            unless ``unsafe``.
    """

    id: int
    name: str
    kem: str
    kdf_id: int
    aead_id: int
    scheme: str
    enc_size: int
    signature_size: int
    tag_size: int
    status: Status

    @property
    def safe(self) -> bool:
        """Whether it may be used without saying ``unsafe``."""
        return self.status in ("standard", "experimental")

    @property
    def sealed(self) -> bool:
        """Whether it encrypts and signs at all."""
        return self.status != "plaintext"


DEFAULT = 0x0001
CLASSICAL = 0x01F1
PLAINTEXT = 0x01FF
_ROWS: tuple[tuple[int, str, str, int, int, str, int, int, int, Status], ...] = (
    (DEFAULT, "X-Wing/AES-256-GCM/ML-DSA-65",
     "x-wing", 1, 2, "ml-dsa-65", 1120, 3309, 16, "standard"),
    (0x0002, "X-Wing/ChaCha20-Poly1305/ML-DSA-65",
     "x-wing", 1, 3, "ml-dsa-65", 1120, 3309, 16, "standard"),
    (0x0003, "MLKEM1024-P384/AES-256-GCM/ML-DSA-87",
     "ml-kem-1024+p384", 2, 2, "ml-dsa-87", 1665, 4627, 16, "standard"),
    (0x0004, "X-Wing/AES-256-GCM/ML-DSA-65 and Ed25519",
     "x-wing", 1, 2, "ml-dsa-65+ed25519", 1120, 3373, 16, "standard"),
    (0x0005, "X-Wing/AES-256-GCM/SLH-DSA-SHA2-128f",
     "x-wing", 1, 2, "slh-dsa-sha2-128f", 1120, 17088, 16, "standard"),
    (0x0101, "HQC-128 and X25519/AES-256-GCM/ML-DSA-65",
     "hqc-128+x25519", 1, 2, "ml-dsa-65", 4465, 3309, 16, "experimental"),
    (0x0102, "SNTRUP-761 and X25519/AES-256-GCM/ML-DSA-65",
     "sntrup-761+x25519", 1, 2, "ml-dsa-65", 1071, 3309, 16, "experimental"),
    (CLASSICAL, "X25519/AES-256-GCM/Ed25519",
     "x25519", 1, 2, "ed25519", 32, 64, 16, "classical"),
    (PLAINTEXT, "plaintext, unsigned updates",
     "", 0, 0, "ml-dsa-65", 0, 0, 0, "plaintext"),
)  # fmt: skip
SUITES = {row[0]: Suite(*row) for row in _ROWS}


def suite(number: int, unsafe: bool = False) -> Suite:
    """The numbered suite; SUITE if unknown, or unsafe and not asked for."""
    found = SUITES.get(number)
    if found is None:
        raise EnvelopeError(Code.SUITE, f"suite {number:#06x} is unknown")
    if not found.safe and not unsafe:
        raise EnvelopeError(Code.SUITE, f"suite {number:#06x} ({found.status}) needs unsafe=True")
    return found


def scheme_of(numbers: Iterable[int]) -> str:
    """The one signature scheme of several suites; SUITE if they have more, or one is unknown."""
    schemes = {suite(number, unsafe=True).scheme for number in numbers}
    if len(schemes) != 1:
        raise EnvelopeError(Code.SUITE, f"suites of one key need one scheme, got {sorted(schemes)}")
    return schemes.pop()


def kem_provider(chosen: Suite, preferred: str) -> str:
    """``preferred`` if it has the suite's KEM, else the provider that does.

    Which library computes a KEM cannot be seen on the wire: HQC and SNTRUP exist in one only.
    """
    if not chosen.kem:
        return preferred
    names = [preferred, *sorted(providers.PROVIDERS)]
    return next(n for n in names if all(providers.offers(n, p) for p in HYBRIDS[chosen.kem].parts))


def lacking(chosen: Suite, signer: str) -> tuple[str, ...]:
    """Parts of the suite's signature that a provider has not."""
    parts = sign.SCHEMES[chosen.scheme]
    return tuple(part for part in parts if not providers.offers(signer, part))
