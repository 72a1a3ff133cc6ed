"""The nets of the workload: ours, and the same as flax writes them. JAX.

The twins have ``nn.Conv``, ``nn.MultiHeadDotProductAttention``, ``nn.LayerNorm`` and ``nn.Dropout``
where qoejax has its own; ``to_flax`` turns our parameters into theirs, and ``to_ours`` back.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import workload as workloads
from experiments.bench.workload import BINS, CLASSES, Workload
from qoejax import trees
from qoejax.nets import NETS, from_module
from qoejax.nets.heads import Heads
from qoejax.objectives.losses import Objective, make_loss
from qoejax.types import Examples, Params

OURS = {"mlp": "mlp", "cnn": "cnn", "hybrid": "qoenet"}


def _heads(workload: Workload) -> dict[str, Any]:
    return {"classes": CLASSES, "services": workloads.services(workload.model), "bins": BINS}


def _objective(net: Any) -> Objective:
    return make_loss(net, class_weight=np.ones(CLASSES, np.float32))


def objective(workload: Workload) -> Objective:
    """Ours."""
    known = {k: v for k, v in workload.sizes.items() if k != "frequencies"}
    sizes = {"dropout": 0.0} | known
    return _objective(NETS[OURS[workload.model]](**_heads(workload), **sizes))


def flax_objective(workload: Workload) -> Objective:
    """The twin; its parameters are those of ``to_flax``."""
    return _objective(from_module(_TWINS[workload.model](_heads(workload), workload.sizes)))


def with_params(workload: Workload, seed: int = 0) -> Workload:
    """The workload with the parameters that our net starts from."""
    params = objective(workload).init(jax.random.key(seed), jnp.asarray(workload.x[:1]))
    return workload._replace(params={n: np.array(a) for n, a in trees.named_leaves(params)})


def tree(flat: dict[str, np.ndarray]) -> Params:
    """Nested parameters of named ones."""
    out: dict[str, Any] = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        node = out
        for part in path:
            node = node.setdefault(part, {})
        node[last] = jnp.asarray(leaf)
    return out


def rows_of(workload: Workload) -> Examples:
    """All rows on the default device."""
    n, services = len(workload.label), workloads.services(workload.model)
    return Examples(
        jnp.asarray(workload.x), jnp.asarray(workload.label), jnp.zeros((n, services)),
        jnp.zeros((n, services), bool), jnp.ones(n),
    )  # fmt: skip


def make_step(workload: Workload) -> Callable[..., Params]:
    """``(params, rows, index [B], key) -> params``: a step of SGD on the twin."""
    loss = flax_objective(workload).loss_fn
    gradient = jax.grad(lambda params, batch, key: loss(params, batch, key)[0])

    def step(params: Params, rows: Examples, index: Any, key: Any) -> Params:
        batch = jax.tree.map(lambda leaf: leaf[index], rows)
        grads = gradient(params, batch, key)
        return jax.tree.map(lambda p, g: p - workload.lr * g, params, grads)

    return step


def make_local(workload: Workload) -> Callable[..., Params]:
    """``(params, rows, index [S, B], key) -> params``: what a client does in a round."""
    step = make_step(workload)

    def local(params: Params, rows: Examples, index: Any, key: Any) -> Params:
        def one(params: Params, item: Any) -> tuple[Params, None]:
            return step(params, rows, *item), None

        return jax.lax.scan(one, params, (index, jax.random.split(key, len(index))))[0]

    return local


class _MLP(nn.Module):
    heads: Any
    sizes: Any

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        h = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.sizes["widths"]):
            h = nn.relu(nn.Dense(width, name=f"dense{i}")(h))
        return Heads(**self.heads, name="heads")(h)


class _CNN(nn.Module):
    heads: Any
    sizes: Any

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        h = x[:, 0, :, None]
        for i, channels in enumerate(self.sizes["channels"]):
            h = nn.relu(nn.Conv(channels, (self.sizes["kernel"],), name=f"conv{i}")(h))
        h = nn.relu(nn.Dense(self.sizes["hidden"], name="dense")(h.reshape(x.shape[0], -1)))
        return Heads(**self.heads, name="heads")(h)


class _Embed(nn.Module):
    size: int
    frequencies: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        features, waves = x.shape[-1], 2 * self.frequencies
        frequency = self.param("frequency", nn.initializers.normal(0.3), (features, waves // 2))
        shape = (features, waves, self.size)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[::2])
        angle = 2 * jnp.pi * x[..., None] * frequency[None]
        h = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
        return nn.relu(jnp.einsum("bfa,fae->bfe", h, kernel) + bias[None])


class _Stem(nn.Module):
    width: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        taps, strides = (self.kernel,), (self.stride,)
        h = nn.relu(nn.Conv(self.width // 2, taps, strides, name="conv0")(x))
        return nn.relu(nn.Conv(self.width, taps, strides, name="conv1")(h))


class _Block(nn.Module):
    heads: int
    mlp: int
    dropout: float

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        h = nn.LayerNorm(name="norm_attention")(x)
        h = nn.MultiHeadDotProductAttention(self.heads, name="attention")(h)
        x = x + drop(h)
        h = nn.LayerNorm(name="norm_mlp")(x)
        h = nn.relu(nn.Dense(self.mlp, name="up")(h))
        return x + drop(nn.Dense(x.shape[-1], name="down")(h))


class _Hybrid(nn.Module):
    heads: Any
    sizes: Any

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        s = self.sizes
        h = _Embed(s["embed_size"], s["frequencies"], name="embed")(x[:, 0])
        h = _Stem(s["width"], s["kernel"], s["stride"], name="stem")(h)
        table = self.param("token_position", nn.initializers.normal(0.02), h.shape[-2:])
        h = h + jnp.broadcast_to(table, h.shape)
        for i in range(s["depth"]):
            h = _Block(s["heads"], s["mlp"], s["dropout"], name=f"block{i}")(h, train)
        h = nn.LayerNorm(name="norm")(h).reshape(x.shape[0], -1)
        h = nn.relu(nn.Dense(s["hidden"], name="record")(h))
        z = nn.Dropout(s["dropout"], deterministic=not train)(h)
        return Heads(**self.heads, name="heads")(z)


_TWINS: dict[str, Callable[..., nn.Module]] = {"mlp": _MLP, "cnn": _CNN, "hybrid": _Hybrid}


def to_flax(params: Params, workload: Workload) -> Params:
    """Our parameters in the twin's layout: q, k and v apart, heads as an axis."""
    return _each_attention(params, lambda own: _apart(own, workload.sizes["heads"]))


def to_ours(params: Params) -> Params:
    """Inverse of ``to_flax``."""
    return _each_attention(params, _together)


def _each_attention(node: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(node, dict):
        return node
    return {
        k: change(v) if k == "attention" else _each_attention(v, change) for k, v in node.items()
    }


def _apart(own: Any, heads: int) -> Any:
    kernel, bias = own["qkv"]["kernel"], own["qkv"]["bias"]
    width = kernel.shape[0]
    kernels, biases = jnp.split(kernel, 3, 1), jnp.split(bias, 3)
    out = {
        name: {"kernel": k.reshape(width, heads, -1), "bias": b.reshape(heads, -1)}
        for name, k, b in zip(("query", "key", "value"), kernels, biases, strict=True)
    }
    kernel = own["out"]["kernel"].reshape(heads, -1, width)
    return out | {"out": {"kernel": kernel, "bias": own["out"]["bias"]}}


def _together(twin: Any) -> Any:
    parts = [twin[name] for name in ("query", "key", "value")]
    width = parts[0]["kernel"].shape[0]
    qkv = {
        "kernel": jnp.concatenate([p["kernel"].reshape(width, -1) for p in parts], 1),
        "bias": jnp.concatenate([p["bias"].reshape(-1) for p in parts]),
    }
    out = twin["out"]["kernel"].reshape(-1, width)
    return {"qkv": qkv, "out": {"kernel": out, "bias": twin["out"]["bias"]}}
