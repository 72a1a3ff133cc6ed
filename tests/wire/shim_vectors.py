"""What pqcrypto makes of the randomness of published vectors; run under the shim by test_shim."""

import json
import sys

from qoejax.wire import provider_pqcrypto as vendor
from qoejax.wire import providers
from qoejax.wire.providers import PROVIDERS
from tests.wire import shim, vectors

KEMS, SIGNATURES = PROVIDERS["pqcrypto"].kems, PROVIDERS["pqcrypto"].signatures


def ml_kem(bits: str, count: int) -> int:
    """Key generation from d, z and encapsulation from m; number of vectors that agree."""
    one, good = KEMS[f"ml-kem-{bits}"], 0
    for entry in vectors.rsp(f"asymmetric/MLKEM/kat_MLKEM_{bits}.rsp", count):
        shim.feed(entry["d"] + entry["z"])
        public, secret = one.keygen()
        shim.feed(entry["msg"])
        ciphertext, shared = one.encaps(public)
        want = [entry[name] for name in ("pk", "sk", "ct", "ss")]
        good += [public, secret.expose(), ciphertext, shared] == want and shim.left() == 0
    return good


def ml_dsa(bits: str, count: int) -> int:
    """Key generation from xi and deterministic signing (rnd = 0)."""
    one, good = SIGNATURES[f"ml-dsa-{bits}"], 0
    for entry in vectors.rsp(f"asymmetric/MLDSA/kat_MLDSA_{bits}_det_pure.rsp", count):
        if len(entry["ctx"]) > 253:
            continue
        shim.feed(entry["xi"])
        public, secret = one.generate()
        shim.feed(bytes(32))
        made = one.signer(secret)(entry["msg"], entry["ctx"])
        want = [entry["pk"], entry["sk"], entry["sm"][: one.signature_size]]
        good += [public, secret.expose(), made] == want and shim.left() == 0
    return good


def slh_dsa(parameters: str) -> int:
    """Key generation from SK.seed, SK.prf and PK.seed of NIST's first vector."""
    algorithm = f"slh-dsa-sha2-{parameters}"
    answer = providers.known_answers()[algorithm]
    shim.feed(answer["sk"][:48])
    public, secret = SIGNATURES[algorithm].generate()
    return int([public, secret.expose()] == [answer["pk"], answer["sk"]])


def exhausted() -> list[int]:
    """A signature that needs 71 rejections: draws until ours succeeds, and the library's verdict.

    pqcrypto gives up after 64, where FIPS 204 allows no fewer than 814.
    """
    one = SIGNATURES["ml-dsa-65"]
    shim.feed(b"\7" * 32)
    public, secret = one.generate()
    message = (262010).to_bytes(8, "little")
    shim.feed(bytes(32))
    try:
        vendor.signatures.ml_dsa_65.sign(secret.expose(), message, b"")
        alone = 1
    except ValueError as error:
        alone = 0 if "exhausted" in str(error) else -1
    shim.feed(bytes(32) + b"\1" * 32 + b"\2" * 32)
    made = one.signer(secret)(message, b"")
    drawn = (96 - shim.left()) // 32
    return [alone, drawn, int(PROVIDERS["openssl"].signatures["ml-dsa-65"].verify(
        public, message, made, b""))]  # fmt: skip


def main() -> None:
    """One JSON object: vectors that agree, by algorithm."""
    count = int(sys.argv[1])
    out = {f"ml-kem-{bits}": ml_kem(bits, count) for bits in ("768", "1024")}
    out |= {f"ml-dsa-{bits}": ml_dsa(bits, count) for bits in ("44", "65", "87")}
    out |= {f"slh-dsa-{name}": slh_dsa(name) for name in ("128f", "128s")}
    print(json.dumps(out | {"exhausted": exhausted()}))


if __name__ == "__main__":
    main()
