"""What every target shares: a folder, instrumented modules, and atheris' own loop."""

import inspect
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable
from types import ModuleType


def run(
    seeds: Iterable[bytes],
    modules: Iterable[ModuleType],
    one: Callable[[pathlib.Path, bytes], None],
) -> None:
    """Fuzzes until atheris stops, from ``seeds``; ``one(folder, data)`` must not raise.

    Only the functions of ``modules`` are instrumented: tracing NumPy and JAX would slow it down.
    """
    import atheris

    folder = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(seeds):
        (corpus / f"{i}").write_bytes(seed)
    for module in modules:
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                atheris.instrument_func(function)
    atheris.Setup([*sys.argv, str(corpus)], lambda data: one(folder, data))
    atheris.Fuzz()
