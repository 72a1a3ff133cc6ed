"""Ways to run the rounds of ``experiments.bench.workload``, one small file each.

Every file has ``prepare(workload, **options) -> Contender``.
"""

import importlib
from typing import Any, NamedTuple

from experiments.bench.workload import Contender, Workload


class Entry(NamedTuple):
    """A file of this folder, its options, and the packages it needs beside qoejax' own."""

    file: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never written
    needs: tuple[str, ...] = ()


CONTENDERS: dict[str, Entry] = {
    "qoejax": Entry("ours"),
    "torch_1": Entry("torch_loop", {"threads": 1}, ("torch",)),
    "torch_all": Entry("torch_loop", {"threads": 0}, ("torch",)),
    "flower": Entry("flower", needs=("torch", "flwr", "ray")),
    "drjax": Entry("drjax", needs=("drjax",)),
    "vmap": Entry("vmap"),
    "jit_clients": Entry("python_loop", {"whole": True}),
    "jit_steps": Entry("python_loop", {"whole": False}),
}
"""By name. ``torch_*``: a plain loop over clients, on one thread or on all. ``flower``: its
simulation on Ray, two actors. ``vmap``: all clients at once, convolutions and attention as flax has
them. ``jit_*``: a Python loop over clients whose round, or whose step, is compiled."""


class MissingError(Exception):
    """A package is not installed; the sentence names it and the remedy."""


def prepare(name: str, workload: Workload, **more: Any) -> Contender:
    """Builds a contender; ``more`` are options of its own that its file knows.

    Raises:
      MissingError: It needs a package that is not there.
    """
    entry = CONTENDERS[name]
    try:
        module = importlib.import_module(f"{__name__}.{entry.file}")
        return module.prepare(workload, **entry.options, **more)
    except ModuleNotFoundError as e:
        package = (e.name or "").partition(".")[0]
        if package not in entry.needs:
            raise
        raise MissingError(
            f"{package} is not installed: pip install 'qoejax[contenders]' (docs/benchmarks.md)"
        ) from e
