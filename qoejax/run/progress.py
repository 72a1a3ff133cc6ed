"""A progress bar on a terminal, plain log lines elsewhere."""

import sys
from collections.abc import Iterable, Iterator

import tqdm


def progress(sizes: Iterable[int], total: int, done: int, unit: str = "round") -> Iterator[int]:
    """Yields ``sizes``, advancing a bar by each; without a terminal nothing is drawn."""
    with tqdm.tqdm(
        total=total, initial=done, unit=unit, disable=not sys.stderr.isatty(), file=sys.stderr
    ) as bar:
        for size in sizes:
            yield size
            bar.update(size)
