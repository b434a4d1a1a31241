"""Is it JSON, and of the form that a JSON schema asks for?"""

from __future__ import annotations

import json
from typing import Any


def read_json(text: str) -> Any:
    """The value of a text that is strict JSON and nothing else. Raises ValueError: NaN and double keys are not JSON."""
    return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)


def is_json(text: str) -> float:
    """1.0 when the whole text is strict JSON. A number or a word in quotes is JSON too."""
    try:
        read_json(text)
    except (ValueError, RecursionError):  # an array in an array in an array ... is too deep for the parser
        return 0.0
    return 1.0


class Schema:
    """A JSON schema of any draft. Nothing is fetched: a reference to another file is an error."""

    def __init__(self, schema: Any) -> None:
        """Raises ValueError, with the place, on what is not a schema."""
        import jsonschema
        from referencing import Registry

        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ValueError(f"{error.json_path}: {error.message}") from error
        self._validator = kind(schema, registry=Registry())

    def problem(self, text: str) -> str | None:
        """What is most wrong with an answer, with its place ($.age: ...); None where it fits.

        Raises ValueError where the schema refers to what it does not hold.
        """
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            value = read_json(text)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}"
        try:
            worst = best_match(self._validator.iter_errors(value))
        except Unresolvable as missing:
            raise ValueError(f"the schema refers to {missing.ref}, which it does not hold") from missing
        return None if worst is None else f"{worst.json_path}: {worst.message}"


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found
