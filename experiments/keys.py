"""Keys and enrolment: create, inspect, request, rotate, enrol, revoke, registry.

python -m experiments.keys create   --key=keys/node.key [--kind=identity|cosigner|authority]
python -m experiments.keys inspect  --key=keys/node.key [--check]
python -m experiments.keys request  --key=keys/node.key --output=node.request
python -m experiments.keys rotate   --key=OLD.key --new_key=NEW.key --registry=R --output=FILE
python -m experiments.keys enrol    --authority=keys/root.key --registry=R --request=node.request
python -m experiments.keys revoke   --authority=keys/root.key --registry=R --id=HEX
python -m experiments.keys registry --registry=R [--trusted=HEX]

The passphrase of key files is in the environment variable QOEJAX_PASSPHRASE, never a flag;
--plain stands for readable key files. Identities are clients and servers, cosigners are logs and
witnesses. `inspect` without --check needs no passphrase.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import cli

_KEY = flags.DEFINE_string("key", None, "Key file.")
_NEW_KEY = flags.DEFINE_string("new_key", None, "Key file that takes over.")
_KIND = flags.DEFINE_string("kind", "identity", "identity, cosigner or authority.")
_SIGNER = flags.DEFINE_string("signer", "pqcrypto", "pqcrypto or openssl.")
_SUITE = flags.DEFINE_integer("suite", 1, "Suite of an identity, by its number (docs/wire.md).")
_PLAIN = flags.DEFINE_boolean("plain", False, "Readable key files, for simulations only.")
_CHECK = flags.DEFINE_boolean("check", False, "Decrypt, and sign with each key.")
_NAME = flags.DEFINE_string("name", None, "Key name of a cosigner: prints its vkey.")
_AUTHORITY = flags.DEFINE_string("authority", None, "Key file of the authority.")
_REGISTRY = flags.DEFINE_string("registry", None, "Registry file.")
_REQUEST = flags.DEFINE_string("request", None, "Request of a device.")
_OUTPUT = flags.DEFINE_string("output", None, "Where a request goes.")
_VALID_TO = flags.DEFINE_integer(
    "valid_to", None, "Unix seconds when the key expires; never by default.", 0
)
_ID = flags.DEFINE_string("id", None, "Id of a client, in hexadecimal.")
_TRUSTED = flags.DEFINE_string("trusted", "", "Public key of the authority, in hexadecimal.")


def _need(flag: flags.FlagHolder) -> str:
    from qoejax.run.errors import RunError

    if flag.value is None:
        raise RunError(f"expected --{flag.name}")
    return str(flag.value)


def _path(flag: flags.FlagHolder) -> pathlib.Path:
    return pathlib.Path(_need(flag))


def _until() -> int:
    from qoejax.wire import keys

    return keys.FOREVER if _VALID_TO.value is None else _VALID_TO.value


def create() -> dict[str, Any]:
    """Makes a key file."""
    from qoejax.run import enrol

    found = enrol.create(_path(_KEY), _KIND.value, _SIGNER.value, _PLAIN.value, _SUITE.value)
    return found | enrol.vkey(_path(_KEY), _NAME.value)


def inspect() -> dict[str, Any]:
    """Shows what is public of a key file."""
    from qoejax.run import enrol

    path = _path(_KEY)
    found = enrol.check_key(path, _PLAIN.value) if _CHECK.value else enrol.inspect(path)
    return found | enrol.vkey(path, _NAME.value)


def request() -> dict[str, Any]:
    """Writes a device's request."""
    from qoejax.run import enrol

    return enrol.request(_path(_KEY), _path(_OUTPUT), _until(), _PLAIN.value, _SUITE.value)


def rotate() -> dict[str, Any]:
    """Writes a device's request to go on under another key."""
    from qoejax.run import enrol

    return enrol.rotate(
        _path(_KEY), _path(_NEW_KEY), _path(_OUTPUT), _path(_REGISTRY), _until(), _PLAIN.value
    )


def admit() -> dict[str, Any]:
    """Grants a request."""
    from qoejax.run import enrol

    return enrol.enrol(_path(_AUTHORITY), _path(_REGISTRY), _path(_REQUEST), _PLAIN.value)


def revoke() -> dict[str, Any]:
    """Revokes a client's key."""
    from qoejax.run import enrol

    return enrol.revoke(_path(_AUTHORITY), _path(_REGISTRY), _need(_ID), _PLAIN.value)


def registry() -> dict[str, Any]:
    """Shows a registry, checked."""
    from qoejax.run import enrol

    return enrol.show(_path(_REGISTRY), _TRUSTED.value)


COMMANDS = {
    "create": create,
    "inspect": inspect,
    "request": request,
    "rotate": rotate,
    "enrol": admit,
    "revoke": revoke,
    "registry": registry,
}

if __name__ == "__main__":
    cli.run_commands(COMMANDS)
