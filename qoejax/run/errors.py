"""What a user did, or a file is, that stops a run: always one clear sentence."""


class RunError(ValueError):
    """A run cannot start or go on; the message says what is wrong and what was expected."""
