"""What all verbs share: the flags that mean the same everywhere, and how a verb ends. People read stderr."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.core.errors import TunesmithError, UsageError
from tunesmith.core.runlog import finite, say

ProjectOption = Annotated[Path | None, typer.Option("--project", help="The project folder; found upwards from here.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Its name; the next number, where not given.")]
SetOption = Annotated[str | None, typer.Option("--set", help="The set's id; the newest, where not given.")]
RunOption = Annotated[str | None, typer.Option("--run", help="The run's name; the newest, where not given.")]
MapOption = Annotated[list[str] | None, typer.Option("--map", help="ROLE=COLUMN, such as prompt=question.")]
VERBS = (  # those that take --project
    "collect|generate|review|prepare|pretrain(?! --embedded)|train|export|evaluate|test|benchmark|judge|compare|scout|"
    "diagnose|fix|gate|vote|rank|show"
)


def open_project(folder: Path | None) -> Any:
    """The project of a verb: the one that is named, or the one that we stand in."""
    from tunesmith import loop
    from tunesmith.core.project import find_project

    return loop.open_project(folder or find_project().path)


def project_at(folder: Path | None) -> Any:
    """The project that is named, or the one that we stand in; None where there is none, for verbs that need none."""
    from tunesmith.core.project import TOML

    here = Path.cwd()
    inside = any((place / TOML).is_file() for place in (here, *here.parents))
    return open_project(folder) if folder or inside else None


def end(as_json: bool, facts: dict[str, Any], following: str) -> None:
    """Every verb ends alike: its object for programs, the next command for people."""
    if following:
        say(f"next: {in_project(following)}")
    if as_json:
        print(json.dumps(finite(facts), allow_nan=False))


def fail(error: TunesmithError) -> None:
    """The message for people, the object for programs, the exit code for the shell."""
    error.fix = in_project(error.fix)
    say(f"error: {error.render()}")
    if "--json" in sys.argv:
        facts = {"what": error.what, "where": error.where, "expected": error.expected, "fix": error.fix}
        print(json.dumps({"error": facts, "exit_code": error.exit_code}))
    sys.exit(error.exit_code)


def in_project(command: str) -> str:
    """A command to type next: with --project where this one was given it."""
    words = sys.argv[1:]
    given = [value for word, value in zip(words, [*words[1:], ""], strict=True) if word == "--project"]
    given += [word.removeprefix("--project=") for word in words if word.startswith("--project=")]
    if not given:
        return command
    flag = f" --project {shlex.quote(given[-1])}"
    return re.sub(rf"\btunesmith ({VERBS})\b", lambda verb: verb[0] + flag, command)


def pairs(values: list[str]) -> dict[str, str]:
    """--map prompt=question --map completion=answer as a dict."""
    found = [(role, column) for role, _, column in (value.partition("=") for value in values)]
    for value, (role, column) in zip(values, found, strict=True):
        if not role or not column:
            raise UsageError(f"--map {value}", expected="ROLE=COLUMN, such as --map prompt=question")
        if [other for other, _ in found].count(role) > 1:
            raise UsageError(f"--map {role}=... is given twice", expected="one column a role")
    return dict(found)


def some(facts: dict[str, Any], names: str) -> dict[str, Any]:
    """Those of the named facts that there are, in the order of the names."""
    return {name: facts[name] for name in names.split() if name in facts}


def lines(facts: dict[str, Any]) -> str:
    """Aligned key and value lines for people."""
    width = max(map(len, facts))
    return "\n".join(f"  {key:<{width}}  {_shown(value)}" for key, value in facts.items())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"
