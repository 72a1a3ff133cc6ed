"""From names in a config to entries of a table, and from sections to arguments."""

from collections.abc import Callable, Mapping
from typing import Any

from qoejax.run.errors import RunError


def choose(options: Mapping[str, Any], name: str, key: str) -> Any:
    """``options[name]``, or a RunError that names the config key and what it may be."""
    if name not in options:
        raise RunError(f"config.{key} is {name!r}: expected one of {', '.join(sorted(options))}")
    return options[name]


def call(function: Callable[..., Any], section: str, **kwargs: Any) -> Any:
    """Calls a factory; an argument that it does not take, or refuses, is a config error."""
    try:
        return function(**kwargs)
    except (TypeError, ValueError) as e:
        raise RunError(f"config.{section}: {e}") from e
