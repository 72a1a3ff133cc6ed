"""CPU seconds spent in each primitive."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Adds up CPU seconds of the calling thread under names such as ``kem`` or ``sign``.

    CPU time, because on shared cores wall time measures the neighbours. Not shared between
    threads: every task has its own, and the totals are added.
    """

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Counts the block under ``name``, also when it raises."""
        start = time.thread_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - start

    def add(self, seconds: dict[str, float]) -> None:
        """Adds another clock's totals."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
