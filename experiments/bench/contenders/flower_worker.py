"""The process of ``flower``: a ServerApp that runs a round for every line on stdin.

Messages and aggregation are those of ``flwr.serverapp.strategy.FedAvg``; clients train the PyTorch
net of the workload on one thread, in actors that keep the rows in memory. NumPy, PyTorch, flwr.
"""

import functools
import os
import pathlib
import pickle
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}

import flwr.simulation
import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from experiments.bench.contenders import torch_nets

ACTORS = 2


@functools.cache
def _workload(folder: str) -> Any:
    """The workload, and its net and rows in PyTorch: once in every actor."""
    fields = pickle.loads((pathlib.Path(folder) / "workload.pickle").read_bytes())
    workload: Any = SimpleNamespace(**fields)
    torch.set_num_threads(1)
    net = torch_nets.make(workload)
    return workload, net, torch.from_numpy(workload.x), torch.from_numpy(workload.label).long()


def _client_app(folder: str) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        workload, net, x, label = _workload(folder)
        client = int(context.node_config["partition-id"])
        number = int(message.content["config"]["server-round"])
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        order = np.random.default_rng([1, number, client]).permutation(workload.rows)
        index = order[: workload.steps * workload.batch].reshape(workload.steps, workload.batch)
        torch_nets.train(net, x, label, client * workload.rows + index, workload.lr)
        reply = RecordDict(
            {
                "arrays": ArrayRecord(net.state_dict()),
                "metrics": MetricRecord({"num-examples": workload.rows}),
            }
        )
        return Message(content=reply, reply_to=message)

    return app


def _server_app(folder: str, answer: Any) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        workload, net, _, _ = _workload(folder)
        strategy = FedAvg(
            fraction_train=workload.cohort / workload.clients, fraction_evaluate=0.0,
            min_train_nodes=workload.cohort, min_available_nodes=workload.clients,
        )  # fmt: skip
        arrays, number = ArrayRecord(net.state_dict()), 0
        for line in sys.stdin:
            if line == "round\n":
                number += 1
                sent = strategy.configure_train(number, arrays, ConfigRecord(), grid)
                replies = list(grid.send_and_receive(sent))
                if broken := [r.error for r in replies if r.has_error()]:
                    raise RuntimeError(f"a client failed: {broken[0].reason}")
                if len(replies) != workload.cohort:
                    raise RuntimeError(f"{len(replies)} of {workload.cohort} clients answered")
                arrays, _ = strategy.aggregate_train(number, replies)
            else:
                net.load_state_dict(arrays.to_torch_state_dict())
                params: dict[str, Any] = torch_nets.dump(net)
                np.savez(pathlib.Path(folder) / "params.npz", **params)
            answer.write("done\n")
            answer.flush()

    return app


def main() -> None:
    """Runs until stdin ends."""
    folder = sys.argv[1]
    # What libraries print must not look like an answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    workload, *_ = _workload(folder)
    with tempfile.TemporaryDirectory(prefix="ray-") as ray:
        flwr.simulation.run_simulation(
            server_app=_server_app(folder, answer), client_app=_client_app(folder),
            num_supernodes=workload.clients, backend_name="ray",
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {"num_cpus": ACTORS, "_temp_dir": ray, "include_dashboard": False},
            },
        )  # fmt: skip


if __name__ == "__main__":
    from experiments.bench.contenders import flower_worker  # actors cannot import __main__

    flower_worker.main()
