"""Prompt templates: rows of a table, in the one language that every other tool reads (a tokenizer's Jinja).

A model's own chat template is used as it is. A base without one gets a row of this table, written into its tokenizer,
so that whatever loads the model later makes the same prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.core.errors import ModelError, UsageError, did_you_mean
from tunesmith.text.tokenizer import Tokenizer

# name -> (before everything, user, assistant header). BOS goes first where the tokenizer adds one.
_ALPACA_HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)
_TABLE = {
    "plain": ("", "### Question:\n", "### Answer:\n"),
    "alpaca": (_ALPACA_HEAD, "### Instruction:\n", "### Response:\n"),
}

# Some templates write today's date. A date that moves would make training and serving differ, so it stands still.
_DATE = datetime(2024, 7, 26)


def template_source(name: str, tokenizer: Tokenizer) -> str:
    """The Jinja source for a template name: auto, a row of the table, or the path of a .jinja file."""
    if name == "auto":
        return tokenizer.chat_template or template_source("plain", tokenizer)
    if name in _TABLE:
        return _from_row(*_TABLE[name], bos=tokenizer.adds_bos)
    if name.endswith(".jinja"):
        if not Path(name).is_file():
            raise UsageError(f"template file {name} does not exist")
        return Path(name).read_text("utf-8")
    raise UsageError(f"unknown template '{name}'", fix=did_you_mean(name, ["auto", *_TABLE, "FILE.jinja"]))


def _from_row(head: str, user: str, answer: str, *, bos: bool) -> str:
    start = ("{{ bos_token }}" if bos else "") + head.replace("\n", "{{ '\\n' }}")
    q, a = user.replace("\n", "{{ '\\n' }}"), answer.replace("\n", "{{ '\\n' }}")
    gap = "{{ '\\n\\n' }}"
    return (
        f"{start}{{% for message in messages %}}"
        f"{{% if message['role'] == 'system' %}}{{{{ message['content'] }}}}{gap}"
        f"{{% elif message['role'] == 'assistant' %}}{a}"
        "{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}{{ '\\n' }}"
        f"{{% else %}}{q}{{{{ message['content'] }}}}{gap}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{a}{{% endif %}}"
    )


class _Generation(Extension):
    """`{% generation %}` marks the answer for other tools; here it only prints its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it this way

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    """The same switches, filter and functions that transformers gives to chat templates."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], keep_trailing_newline=False
    )
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise
    env.globals["strftime_now"] = _DATE.strftime
    return env


class Template:
    """A compiled chat template of one tokenizer."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        self.source = re.sub("\r\n?", "\n", source)  # what reading it back from a file makes of it
        self._tokens = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token}
        try:
            self._compiled = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template is not valid Jinja: {error}", fix="--template plain") from error

    def render(self, messages: Sequence[dict[str, str]], *, generate: bool) -> str:
        """The prompt text. Raises jinja2.TemplateError where the template refuses these messages."""
        values = {"date_string": _DATE.strftime("%d %b %Y"), "tools": None, "documents": None, **self._tokens}
        try:
            return self._compiled.render(messages=list(messages), add_generation_prompt=generate, **values)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise jinja2.TemplateError(f"{type(error).__name__}: {error}") from error
