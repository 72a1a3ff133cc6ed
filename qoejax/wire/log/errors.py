"""What is wrong with a log, and where."""


class LogError(ValueError):
    """A log, a checkpoint or a proof is not what it should be.

    Attributes:
        entry: index of the first bad entry, or None where no single entry is to blame.
    """

    def __init__(self, message: str, entry: int | None = None):
        super().__init__(message)
        self.entry = entry


class SplitViewError(LogError):
    """The log showed two histories: it was forked, or rolled back and continued differently."""
