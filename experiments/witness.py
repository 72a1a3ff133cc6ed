"""A witness of transparency logs: cosigns what continues what it has seen, over HTTP.

python -m experiments.witness --name=example.org/w1 --key=keys/w1.key --memory=w1 --logs=logs.policy

--key is made with `python -m experiments.keys create --kind=cosigner`; --logs is a tlog-policy
file, of which the log lines count. The passphrase of the key is in QOEJAX_PASSPHRASE, unless
--plain. Says its address and vkey in one line of JSON, then serves until it is interrupted.
"""

import pathlib
import signal
import sys
from typing import Any

from absl import flags

from experiments import cli

_NAME = flags.DEFINE_string("name", None, "Key name, a URL without its scheme.", required=True)
_KEY = flags.DEFINE_string("key", None, "Key file.", required=True)
_MEMORY = flags.DEFINE_string("memory", None, "Folder of what it remembers.", required=True)
_LOGS = flags.DEFINE_string("logs", None, "Policy file with the logs it knows.", required=True)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.")
_PORT = flags.DEFINE_integer("port", 0, "Port; 0 takes a free one.", 0, 65535)
_PLAIN = flags.DEFINE_boolean("plain", False, "The key file is not encrypted.")


def main() -> dict[str, Any]:
    """Serves until SIGINT or SIGTERM; returns how many logs it remembers."""
    from qoejax.run import files, verify
    from qoejax.run.enrol import passphrase, wire_errors
    from qoejax.wire import keyfile
    from qoejax.wire.log import note, service, witness

    with wire_errors():
        provider, pairs = keyfile.load_pairs(
            pathlib.Path(_KEY.value), note.SCHEME, passphrase(_PLAIN.value)
        )
        cosigner = note.Cosigner(_NAME.value, provider, *pairs[0])
    logs = verify.read_policy(pathlib.Path(_LOGS.value)).logs
    memory = files.writable_folder(pathlib.Path(_MEMORY.value), "memory")
    with files.locked(memory / ".lock", f"memory {memory}"):
        served = service.serve(witness.Witness(cosigner, logs, memory), _HOST.value, _PORT.value)
        host, port = served.server_address[:2]
        vkey = cosigner.verifier.vkey
        print(files.dumps({"url": f"http://{host}:{port}", "vkey": vkey}), flush=True)
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, lambda *_: sys.exit(0))
        with served:
            served.serve_forever()
    return {}


if __name__ == "__main__":
    cli.run(main)
