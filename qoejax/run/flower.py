"""Flower as the transport: gRPC streams between one server and its clients (extra ``flower``).

Flower carries bytes and nothing else. A question is the one tensor of a ``FitIns``, an answer that
of a ``FitRes``; Flower's own strategies, weights and metrics are not used, and what it says of a
client is not believed. These are Flower's long-lived clients (``start_server``, ``start_client``):
a SuperNode of 1.41 starts a new process for every message, which here would mean starting JAX and
compiling a client's half in every round, and looks for messages every three seconds.
"""

import importlib.util
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from qoejax.run.errors import RunError
from qoejax.run.network import Ask, Gate

LOG = logging.getLogger("qoejax")

RETRY_SECONDS = 2.0
"""Between a client's attempts to reach the server."""


def installed() -> bool:
    """Whether Flower can be imported at all."""
    return importlib.util.find_spec("flwr") is not None


def _flwr() -> Any:
    """Flower, which reports to its makers unless told not to before it is imported.

    Raises:
      RunError: it is not installed.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import flwr
            import flwr.client
            import flwr.server
    except ImportError as error:
        raise RunError(
            f"Flower cannot be imported ({error}): expected an environment of its own with "
            "qoejax[flower], because flwr wants older protobuf, rich and packaging than the lock"
        ) from None
    logging.getLogger("flwr").setLevel(logging.ERROR)  # deprecation notes; this module says why
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # a stack trace for every lost stream
    return flwr


def serve(address: str, gate: Gate, train: Callable[[], Any]) -> Any:
    """Listens on ``address`` (host:port) while ``train`` runs; returns what that returns.

    Every connection is handed to ``gate``. When training ends, connected clients are told to end.

    Raises:
      RunError: no Flower, or an address that cannot be listened on.
    """
    flwr = _flwr()
    results: list[Any] = []

    class Manager(flwr.server.SimpleClientManager):
        """Knows who is connected, and tells the gate."""

        def register(self, client: Any) -> bool:
            threading.Thread(target=gate.arrived, args=(_ask(flwr, client),), daemon=True).start()
            return super().register(client)

    class Training(flwr.server.Server):
        """Flower's server loop, replaced by ours."""

        def fit(self, num_rounds: int, timeout: float | None) -> tuple[Any, float]:
            start = time.monotonic()
            results.append(train())
            return flwr.server.History(), time.monotonic() - start

    try:
        flwr.server.start_server(
            server_address=address,
            server=Training(client_manager=Manager()),
            config=flwr.server.ServerConfig(num_rounds=1, round_timeout=30.0),
        )
    except RuntimeError as error:
        if "bind" not in str(error):
            raise
        raise RunError(f"address {address} cannot be listened on: expected a free one") from None
    return results[0]


def _ask(flwr: Any, client: Any) -> Ask:
    """Questions to one connection of Flower's, as ``network.Ask``."""
    from flwr.common import Code, FitIns, Parameters
    from flwr.server.superlink.fleet.grpc_bidi.grpc_bridge import GrpcBridgeClosed

    del flwr

    def ask(question: bytes, seconds: float) -> bytes:
        try:
            ins = FitIns(Parameters([question], "qoejax"), {})
            said = client.fit(ins, timeout=seconds, group_id=0)
        except GrpcBridgeClosed:
            raise ConnectionError("the stream ended, or the answer took too long") from None
        if said.status.code != Code.OK or len(said.parameters.tensors) != 1:
            raise ConnectionError("an answer that is none")
        return said.parameters.tensors[0]

    return ask


def attend(address: str, answer: Callable[[bytes], bytes], patience: float) -> None:
    """Answers the questions of the server at ``address`` until it says that the run is over.

    A server that is not there, or a stream that broke, is tried again.

    Args:
      address: host:port.
      answer: Bytes in, bytes out.
      patience: Seconds without a server after which to give up.

    Raises:
      RunError: no Flower, or no server for that long.
    """
    flwr = _flwr()
    import grpc
    from flwr.common import Code, FitIns, FitRes, Parameters, Status

    heard = [time.monotonic()]

    class Client(flwr.client.Client):
        """Hands a question on, and the answer back."""

        def fit(self, ins: FitIns) -> FitRes:
            (question,) = ins.parameters.tensors
            data = answer(question)
            heard[0] = time.monotonic()
            return FitRes(Status(Code.OK, ""), Parameters([data], "qoejax"), 0, {})

    while True:
        try:
            flwr.client.start_client(server_address=address, client=Client(), insecure=True)
            return
        except (grpc.RpcError, StopIteration) as error:
            if time.monotonic() - heard[0] > patience:
                raise RunError(
                    f"no server at {address} for {patience:g} s: expected experiments."
                    "flower_server there"
                ) from None
            code = getattr(error, "code", lambda: "no answer")()
            LOG.warning("no stream to %s (%s); trying again", address, code)
            time.sleep(RETRY_SECONDS)
