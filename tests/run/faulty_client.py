"""A client of a run, as a process, behind a network of ``faults``.

python -m tests.run.faulty_client CONFIG WORKDIR CLIENT ADDRESS FAULT TRANSPORT
"""

import importlib.util
import logging
import pathlib
import sys

from qoejax.run import flower, node
from tests.run import sockets
from tests.run.faults import FAULTS


def main(config, workdir, client, address, fault, transport):
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    spec = importlib.util.spec_from_file_location("config", config)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer = node.open_node(module.get_config(), pathlib.Path(workdir), int(client), None)
    answer = FAULTS.get(fault, lambda answer: answer)(answer)
    if transport == "flower":
        flower.attend(address, answer, 60.0)
    else:
        sockets.attend(int(address), answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
