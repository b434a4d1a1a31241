"""docs/cli.md names every verb and flag that there is and no others; the settings on the pages are the real ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer.main

from tunesmith.cli import app
from tunesmith.core.config import Config, toml_value
from tunesmith.core.errors import TunesmithError

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "cli.md").read_text(encoding="utf-8")
COMMAND: Any = typer.main.get_command(app)
VERBS: dict[str, Any] = COMMAND.commands
FLAG = re.compile(r"--[a-z][a-z-]*")


def sections(page: str) -> dict[str, str]:
    """Heading -> text; what comes before the first heading is ''."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def flags(verb: str) -> set[str]:
    return {name for p in VERBS[verb].params if p.param_type_name == "option" for name in p.opts}


def choices(hint: Any) -> list[str]:
    """The words of every Literal in a type."""
    parts = get_args(hint)
    return list(parts) if get_origin(hint) is Literal else [word for part in parts for word in choices(part)]


def test_the_page_has_a_section_for_every_verb_in_the_order_of_the_help() -> None:
    assert [name for name in sections(PAGE) if name not in ("", "Exit codes")] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_section_of_a_verb_names_its_flags_and_no_others(verb: str) -> None:
    assert set(FLAG.findall(sections(PAGE)[verb])) == flags(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_the_section_of_a_verb_names_its_arguments_and_choices(verb: str) -> None:
    section = sections(PAGE)[verb]
    for param in VERBS[verb].params:
        if param.param_type_name == "argument":
            assert (param.metavar or param.name).upper() in section.upper()
    (function,) = [c.callback for c in app.registered_commands if c.callback and c.callback.__name__ == verb]
    for hint in get_type_hints(function).values():
        assert all(re.search(rf"\b{word}\b", section) for word in choices(hint)), hint


def test_flags_outside_the_sections_exist_too() -> None:
    own = {name for p in COMMAND.params for name in p.opts}
    everywhere = {"--help"} | own | {flag for verb in VERBS for flag in flags(verb)}
    assert set(FLAG.findall(PAGE)) <= everywhere
    assert {"--project", "--json", "--name", "--version", "--help"} <= set(FLAG.findall(sections(PAGE)[""]))


def test_the_exit_codes_are_those_of_the_errors() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", sections(PAGE)["Exit codes"], flags=re.MULTILINE)}
    assert listed == {0, 1, 10} | {kind.exit_code for kind in TunesmithError.__subclasses__()}


def configs() -> dict[str, type[Config]]:
    from tunesmith.loop import stage_configs

    return stage_configs()


@pytest.mark.parametrize("stage", ["train", "pretrain"])
def test_the_settings_on_a_stages_page_are_its_fields_with_their_defaults(stage: str) -> None:
    (title,) = [name for name in sections((DOCS / f"{stage}.md").read_text("utf-8")) if name.startswith("Settings")]
    table = sections((DOCS / f"{stage}.md").read_text("utf-8"))[title]
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, flags=re.MULTILINE))
    fields = configs()[stage].model_fields
    assert list(listed) == list(fields)
    for name, field in fields.items():
        if field.default is None:
            assert "`" not in listed[name], f"{name} is decided"
        else:
            assert listed[name] == f"`{toml_value(field.default)}`"
