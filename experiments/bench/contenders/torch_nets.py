"""The workload's nets in PyTorch, layer for layer. NumPy and PyTorch only.

Modules are named as our parameters are, so that ``load`` and ``dump`` need no table of names.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from experiments.bench.workload import BINS, CLASSES, Workload

LOW, HIGH = 1.0, 5.0  # the scale of a MOS


class Heads(nn.Module):
    """Class logits, and logits of MOS bins where there is a service."""

    def __init__(self, width: int, services: int):
        super().__init__()
        self.add_module("class", nn.Linear(width, CLASSES))
        self.mos = nn.Linear(width, services * BINS) if services else None

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of [B, D]."""
        mos = None if self.mos is None else self.mos(z).reshape(len(z), -1, BINS)
        return self.get_submodule("class")(z), mos


class MLP(nn.Module):
    """ReLU layers."""

    def __init__(self, features: int, widths: tuple[int, ...]):
        super().__init__()
        self.names = [f"dense{i}" for i in range(len(widths))]
        for name, a, b in zip(self.names, (features, *widths), widths, strict=False):
            self.add_module(name, nn.Linear(a, b))
        self.heads = Heads(widths[-1], 0)

    def forward(self, x: torch.Tensor) -> Any:
        """Of [B, 1, F]."""
        h = x[:, 0]
        for name in self.names:
            h = F.relu(self.get_submodule(name)(h))
        return self.heads(h)


class CNN(nn.Module):
    """Convolutions along the features, and a dense layer."""

    def __init__(self, features: int, channels: tuple[int, ...], kernel: int, hidden: int):
        super().__init__()
        self.names = [f"conv{i}" for i in range(len(channels))]
        for name, a, b in zip(self.names, (1, *channels), channels, strict=False):
            self.add_module(name, nn.Conv1d(a, b, kernel, padding="same"))
        self.dense = nn.Linear(features * channels[-1], hidden)
        self.dense.channels = channels[-1]  # its inputs are sorted by channel; ours by feature
        self.heads = Heads(hidden, 0)

    def forward(self, x: torch.Tensor) -> Any:
        """Of [B, 1, F]."""
        h = x
        for name in self.names:
            h = F.relu(self.get_submodule(name)(h))
        return self.heads(F.relu(self.dense(h.flatten(1))))


class Embed(nn.Module):
    """Periodic features, each with a layer of its own."""

    def __init__(self, features: int, frequencies: int, size: int):
        super().__init__()
        self.frequency = nn.Parameter(torch.zeros(features, frequencies))
        self.kernel = nn.Parameter(torch.zeros(features, 2 * frequencies, size))
        self.bias = nn.Parameter(torch.zeros(features, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, F] -> [B, F, E]."""
        angle = 2 * math.pi * x[..., None] * self.frequency
        waves = torch.cat([angle.sin(), angle.cos()], -1)
        return F.relu(torch.einsum("bfa,fae->bfe", waves, self.kernel) + self.bias)


class Stem(nn.Module):
    """Two convolutions with stride."""

    def __init__(self, features: int, size: int, width: int, kernel: int, stride: int):
        super().__init__()
        middle = math.ceil(features / stride)
        self.conv0 = nn.Conv1d(size, width // 2, kernel, stride, _pad(features, kernel, stride))
        self.conv1 = nn.Conv1d(width // 2, width, kernel, stride, _pad(middle, kernel, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, F, E] -> [B, N, D]."""
        h = F.relu(self.conv0(x.transpose(1, 2)))
        return F.relu(self.conv1(h)).transpose(1, 2)


class Attention(nn.Module):
    """q, k and v from one matmul; PyTorch's own fused attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Over N of [B, N, D]."""
        b, n, d = x.shape
        q, k, v = (
            part.reshape(b, n, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        h = F.scaled_dot_product_attention(q, k, v)
        return self.out(h.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    """Pre-LN."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, mlp), nn.Linear(mlp, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = x + self.drop(self.attention(self.norm_attention(x)))
        return x + self.drop(self.down(F.relu(self.up(self.norm_mlp(x)))))


class Hybrid(nn.Module):
    """The default CNN-Transformer at T = 1."""

    def __init__(self, features: int, s: dict[str, Any]):
        super().__init__()
        tokens = math.ceil(math.ceil(features / s["stride"]) / s["stride"])
        self.embed = Embed(features, s["frequencies"], s["embed_size"])
        self.stem = Stem(features, s["embed_size"], s["width"], s["kernel"], s["stride"])
        self.token_position = nn.Parameter(torch.zeros(tokens, s["width"]))
        self.blocks = [f"block{i}" for i in range(s["depth"])]
        for name in self.blocks:
            self.add_module(name, Block(s["width"], s["heads"], s["mlp"], s["dropout"]))
        self.norm = nn.LayerNorm(s["width"], eps=1e-6)
        self.record = nn.Linear(tokens * s["width"], s["hidden"])
        self.drop = nn.Dropout(s["dropout"])
        self.heads = Heads(s["hidden"], 1)

    def forward(self, x: torch.Tensor) -> Any:
        """Of [B, 1, F]."""
        h = self.stem(self.embed(x[:, 0])) + self.token_position
        for name in self.blocks:
            h = self.get_submodule(name)(h)
        h = self.record(self.norm(h).flatten(1))
        return self.heads(self.drop(F.relu(h)))


def _pad(length: int, kernel: int, stride: int) -> int:
    """Zeros on either side that keep ceil(length / stride) windows, as ours have."""
    total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
    if total % 2:
        raise ValueError(f"{length} features would need {total} zeros, an odd number")
    return total // 2


def make(workload: Workload) -> nn.Module:
    """The net with the workload's parameters."""
    features, s = workload.x.shape[-1], workload.sizes
    makers = {
        "mlp": lambda: MLP(features, s["widths"]),
        "cnn": lambda: CNN(features, s["channels"], s["kernel"], s["hidden"]),
        "hybrid": lambda: Hybrid(features, s),
    }
    net = makers[workload.model]()
    load(net, workload.params)
    return net


def loss(net: nn.Module, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; the score of the MOS head counts for nothing, as nothing is rated."""
    logits, mos = net(x)
    total = F.cross_entropy(logits, label)
    if mos is None:
        return total
    target = torch.zeros(mos.shape[-1])
    target[0] = 1.0
    gap = torch.cumsum(mos.softmax(-1) - target, -1)[..., :-1]
    score = gap.square().sum(-1) * (HIGH - LOW) / (mos.shape[-1] - 1)
    return total + (score * 0.0).mean()


def _layout(net: nn.Module, name: str) -> tuple[str, str]:
    """The module of a parameter, and our name of the parameter."""
    path, _, last = name.rpartition(".")
    owner = net.get_submodule(path)
    if last == "weight":
        last = "scale" if isinstance(owner, nn.LayerNorm) else "kernel"
    return path, "/".join(["net", *path.split("."), last] if path else ["net", last])


def load(net: nn.Module, params: dict[str, np.ndarray]) -> None:
    """Copies our parameters into the net.

    Raises:
      ValueError: One is on one side only.
    """
    own = {_layout(net, name)[1]: (name, p) for name, p in net.named_parameters()}
    if odd := sorted(own.keys() ^ params.keys()):
        raise ValueError(f"parameter {odd[0]} is on one side only")
    with torch.no_grad():
        for name, (theirs, p) in own.items():
            p.copy_(torch.from_numpy(_to_torch(net, theirs, params[name])))


def dump(net: nn.Module) -> dict[str, np.ndarray]:
    """Inverse of ``load``."""
    return {
        _layout(net, name)[1]: _to_ours(net, name, p.detach().numpy())
        for name, p in net.named_parameters()
    }


def _to_torch(net: nn.Module, name: str, a: np.ndarray) -> np.ndarray:
    owner = net.get_submodule(name.rpartition(".")[0])
    if a.ndim == 3 and isinstance(owner, nn.Conv1d):
        a = a.transpose(2, 1, 0)
    elif a.ndim == 2 and isinstance(owner, nn.Linear):
        if channels := getattr(owner, "channels", 0):
            a = a.reshape(-1, channels, a.shape[1]).swapaxes(0, 1).reshape(a.shape)
        a = a.T
    return np.ascontiguousarray(a)


def _to_ours(net: nn.Module, name: str, a: np.ndarray) -> np.ndarray:
    owner = net.get_submodule(name.rpartition(".")[0])
    if a.ndim == 3 and isinstance(owner, nn.Conv1d):
        a = a.transpose(2, 1, 0)
    elif a.ndim == 2 and isinstance(owner, nn.Linear):
        a = a.T
        if channels := getattr(owner, "channels", 0):
            a = a.reshape(channels, -1, a.shape[1]).swapaxes(0, 1).reshape(a.shape)
    return np.ascontiguousarray(a)


def train(net: nn.Module, x: torch.Tensor, label: torch.Tensor, index: Any, lr: float) -> None:
    """A client's round in place: a step for each row of ``index`` [S, B]."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for batch in torch.as_tensor(index):
        optimizer.zero_grad()
        loss(net, x[batch], label[batch]).backward()
        optimizer.step()
