"""Self-contained HTML pages: templates, one style, numbers as people read them."""

import math
import pathlib
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """The page of a template in ``templates/``; an unknown value in it is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(**values)


def number(value: Any) -> str:
    """Four digits after the point, thousands apart; a dash for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
