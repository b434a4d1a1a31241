"""Stage configs: frozen, typed, from TOML; an unknown key is an error with a did-you-mean."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tunesmith.core.errors import UsageError, did_you_mean


class Config(BaseModel):
    """The base of every stage's config. Each field has a description: `new` writes it beside the value."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def make(kind: type[C], values: dict[str, Any], where: str = "") -> C:
    """Build a config. Raises UsageError naming the key, what it takes, and the nearest known key."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # misspelt explains missing
        key = ".".join(str(part) for part in first["loc"]) or "config"
        if first["type"] == "extra_forbidden":
            raise UsageError(f"unknown key '{key}'", where=where, fix=did_you_mean(key, kind.model_fields)) from error
        known = kind.model_fields.get(str(first["loc"][0])) if first["loc"] else None
        takes = " ".join((known.description or "").split()) if known else ""
        got = json.dumps(first.get("input"), default=str, ensure_ascii=False)
        said = first["msg"].removeprefix("Value error, ")
        what = f"{key} = {got}: {said[0].lower()}{said[1:]}" if first["loc"] else said
        what = f"'{key}' is missing" if first["type"] == "missing" else what
        raise UsageError(what, where=where, expected=takes) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with or without a BOM. Raises UsageError where it is not one."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # bad TOML, or bytes that are not UTF-8
        raise UsageError(f"not valid TOML: {error}", where=str(path)) from error


def toml_value(value: Any) -> str:
    """A TOML literal. JSON's strings (but for a raw DEL), integers and booleans are TOML's too."""
    match value:
        case dict():
            pairs = (f"{toml_value(k)} = {toml_value(v)}" for k, v in value.items() if v is not None)
            return "{ " + ", ".join(pairs) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case float():
            return repr(value)  # inf and nan are TOML, and not JSON
        case _:
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def to_toml(section: str, config: Config) -> str:
    """One section, every key with its comment. `None` ("decide for me") is a commented-out key: TOML has no null."""
    lines = [f"[{section}]"]
    for key, value in config.model_dump(mode="json").items():
        comment = " ".join((type(config).model_fields[key].description or "").split())
        lines.append(f"# {key} =  # {comment}" if value is None else f"{key} = {toml_value(value)}  # {comment}")
    return "\n".join(lines) + "\n"
