"""What every command does alike: logs to stderr, one JSON line to stdout, one-sentence errors."""

import logging as std_logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags


def fail(message: str, code: int = 1) -> None:
    """Says one sentence on stderr and exits."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def run(
    command: Callable[[], dict[str, Any] | None],
    failed: Callable[[dict[str, Any]], str] = lambda result: "",
) -> None:
    """Runs a command: its result, if it has one, is printed as one line of JSON.

    ``failed`` may find that a result is one to fail on: the sentence it returns is then said, and
    the exit code is 1.
    """
    _logs()
    # Threads of OpenMP that wait in a loop are slower by a multiple once cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]!r}; see --help")
        _check_config()
        from qoejax.data.errors import DataError  # after flags: --help needs neither TFDS nor JAX
        from qoejax.run import files
        from qoejax.run.errors import RunError

        try:
            result = command()
        except (RunError, DataError) as e:
            fail(str(e))
        except OSError as e:
            fail(f"{e.filename or 'system'}: {e.strerror or e}")
        except KeyboardInterrupt:
            fail("interrupted; run the same command again to go on", 130)
        else:
            if result is None:
                return
            print(files.dumps(result), flush=True)
            if message := failed(result):
                fail(message)

    try:
        app.run(main, flags_parser=_parse)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        fail(f"config: {e}")


def run_commands(commands: dict[str, Callable[[], dict[str, Any]]]) -> None:
    """Runs the sub-command that is the first argument; flags may stand before or after it."""
    rest = [word for word in sys.argv[1:] if not word.startswith("-")]
    if not rest:
        if any(word.lstrip("-").startswith("help") for word in sys.argv[1:]):
            run(dict)
        fail(f"expected a command: {', '.join(commands)}; see --help")
    if rest[0] not in commands:
        fail(f"unknown command {rest[0]!r}: expected one of {', '.join(commands)}")
    sys.argv.remove(rest[0])
    run(commands[rest[0]])


def _check_config() -> None:
    """A config file that could not be loaded shows only when its value is read."""
    if "config" in flags.FLAGS:
        try:
            flags.FLAGS.config.to_dict()
        except OSError as e:
            fail(f"config: {str(e).partition(': ')[2]}")


def _logs() -> None:
    """Our own lines at INFO; libraries speak up at ERROR only, and never on stdout."""
    logging.set_verbosity(logging.ERROR)
    handler = std_logging.StreamHandler(sys.stderr)
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours = std_logging.getLogger("qoejax")
    ours.addHandler(handler)
    ours.setLevel(std_logging.INFO)
    ours.propagate = False
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def _parse(argv: list[str]) -> list[str]:
    """Absl's parser; what a config file or an override raises becomes one sentence."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as e:
        fail(str(e))
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        fail(f"config: {e}")
    return argv


def define_config() -> Any:
    """The --config flag: a file of configs/, with its variant after a colon."""
    return config_flags.DEFINE_config_file(
        "config", None, "configs/NAME.py[:variant]; --config.key=value overrides.", lock_config=True
    )
