"""What every report for people shares: one file that needs nothing else, one look, and everything escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOOK = Path(__file__).parent / "templates"  # look.html.j2: colours, type, tables, and how an answer is shown


def render(template: Path, parts: Mapping[str, Any], filters: Mapping[str, Any] | None = None) -> str:
    """The page that `template` makes of `parts`; it may import look.html.j2. A name that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, LOOK]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= filters or {}
    return environment.get_template(template.name).render(**parts).lstrip() + "\n"
