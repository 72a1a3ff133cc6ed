"""Bytes that must not be printed, compared in variable time or pickled by accident."""

import hmac
from typing import NoReturn


class Secret:
    """Holds key material; ``expose`` is the only way out, so every use can be searched for.

    Python cannot wipe ``bytes``: dropping the last reference is best effort.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes):
        self._value = bytes(value)

    def expose(self) -> bytes:
        """The bytes themselves."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return f"<Secret of {len(self._value)} bytes>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> NoReturn:
        raise TypeError("a Secret is not hashable: its hash would be a fingerprint of the key")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Secret is neither pickled nor copied: pass what expose() returns, knowingly"
        )
