# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # qoejax in a few minutes
#
# Simulated IoT sites behind shared bottlenecks, a CNN-Transformer that predicts the intrusion class
# and the experience of four services up to ten seconds ahead, federated rounds in which every
# update is sealed and signed by post-quantum cryptography, and an honest look at the result.
#
# On Colab, run the first cell with `QOEJAX_SOURCE` set to where the project's source is (a path or
# a URL that pip understands). Where qoejax is installed already, it does nothing.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("qoejax") is None:
    source = os.environ.get("QOEJAX_SOURCE", ".")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import json
import pathlib
import tempfile

from configs import quickstart
from qoejax.run.train import train

workdir = pathlib.Path(os.environ.get("QOEJAX_WORKDIR", tempfile.mkdtemp())) / "hybrid"

config = quickstart.get_config()
with config.unlocked():
    config.data.dir = str(workdir.parent / "data")
    config.data.name = os.environ.get("QOEJAX_DATASET", config.data.name)
    config.fed.rounds = int(os.environ.get("QOEJAX_ROUNDS", config.fed.rounds))
    config.clients.count = int(os.environ.get("QOEJAX_CLIENTS", config.clients.count))
    config.perf.client_axis = "turn"  # "shard" uses all devices, but must be set before JAX starts

summary = train(config, workdir)
print(json.dumps({k: summary[k] for k in ("rounds", "params", "accuracy", "macro_f1")}, indent=1))

# %% [markdown]
# ## What the run left behind
#
# `report.html` holds all of this on one page; here are some of the figures.

# %%
from IPython.display import Image, display

for name in ("convergence", "confusion", "mos", "horizons", "partition", "wire"):
    display(Image(str(workdir / "plots" / f"{name}.png")))

# %% [markdown]
# ## What the wire cost

# %%
from qoejax.run.report import wire_totals
from qoejax.run.writer import read_rows

totals = wire_totals(read_rows(workdir / "metrics.jsonl"))
print(f"{totals['updates']} sealed updates, {totals['bytes_up'] / 1e6:.1f} MB up")
print(f"{100 * totals['share']:.1f} % of the time was spent waiting for cryptography")

# %% [markdown]
# ## Your own network, in ten lines
#
# A net is two pure functions. Nothing else has to change: the same rounds, wire and metrics apply.

# %%
import jax
import jax.numpy as jnp

from qoejax.nets import NETS
from qoejax.nets.net import Net


def last_second(*, classes, services, bins=17, hidden=32):
    """One hidden layer over the last record of the window."""
    outputs = classes + services * bins

    def init(key, x):
        a, b = jax.random.split(key)
        w = jax.random.normal(a, (x.shape[-1], hidden)) / x.shape[-1] ** 0.5
        return {"w": w, "v": 0.1 * jax.random.normal(b, (hidden, outputs))}

    def apply(params, x, *, key=None):
        out = jnp.tanh(x[:, -1] @ params["w"]) @ params["v"]
        return {"logits": out[:, :classes], "mos": out[:, classes:].reshape(-1, services, bins)}

    return Net(init, apply)


NETS["last_second"] = last_second
with config.unlocked():
    config.model = {"net": "last_second", "hidden": 32}

own = train(config, workdir.parent / "own")
print(f"hybrid {summary['macro_f1']:.3f}, own net {own['macro_f1']:.3f} macro-F1")
