"""A plain sequential PyTorch loop over clients."""

import itertools
import os

import torch

from experiments.bench.contenders import torch_nets
from experiments.bench.workload import Contender, Workload


def prepare(workload: Workload, *, threads: int) -> Contender:
    """``threads`` of PyTorch's operations; 0 is one a core."""
    net = torch_nets.make(workload)
    x = torch.from_numpy(workload.x)
    label = torch.from_numpy(workload.label).long()
    numbers = itertools.count()

    def one_round() -> None:
        torch.set_num_threads(threads or os.cpu_count() or 1)
        start = [p.detach().clone() for p in net.parameters()]
        total = [torch.zeros_like(p) for p in start]
        for own in workload.draw(next(numbers)).astype("int64"):
            with torch.no_grad():
                for p, s in zip(net.parameters(), start, strict=True):
                    p.copy_(s)
            torch_nets.train(net, x, label, own, workload.lr)
            with torch.no_grad():
                for t, p in zip(total, net.parameters(), strict=True):
                    t.add_(p, alpha=1 / workload.cohort)
        with torch.no_grad():
            for p, t in zip(net.parameters(), total, strict=True):
                p.copy_(t)

    return Contender(one_round, lambda: torch_nets.dump(net))
