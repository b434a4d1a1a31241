"""A training row as training will see it: its tokens, which of them are trained, and what is cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import read_rows
from tunesmith.core.project import Project, cache_dir
from tunesmith.core.records import Row
from tunesmith.loop import base_path, template
from tunesmith.text.length import MARK, Fitted, decide_length, view
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train.config import TrainConfig
from tunesmith.train.data import fitted_row, render
from tunesmith.train.plan_batches import Trainable

_MARKS = {  # on a terminal (green, red), and where there are no colours
    True: {"trained": ("\x1b[32m", "\x1b[0m"), "cut": ("\x1b[31m", "\x1b[0m")},
    False: {"trained": ("[", "]"), "cut": ("{", "}")},
}
_ANCHOR = 20  # characters before a cut by which it is found in the rendering


def row_view(project: Project, name: str | None, number: int, *, colour: bool) -> tuple[dict[str, Any], str]:
    """A training row as training will see it: the base's template, the project's limit, and what is trained marked.

    Without a `max_length` every row of a run is rendered: the limit is decided from their exact lengths.
    """
    set_ = project.open("set", name)
    rows = list(read_rows(set_.path / "train.jsonl"))
    if not 1 <= number <= len(rows):
        raise UsageError(f"{set_.name} has no training row {number}", expected=f"1 to {len(rows)}")
    config = project.config("train", TrainConfig)
    renderer, context = _renderer(project, config)
    row = rows[number - 1]
    every = [*rows, *read_rows(set_.path / "valid.jsonl")]
    rendered = render(every if config.max_length is None else [row], renderer)
    limit = decide_length([one.tokens for one in rendered], context, config.max_length)
    one = next(one for one in rendered if one.row is row)
    facts = {"set": set_.name, "row": number, "id": row.id, "over_length": config.over_length}
    fitted = fitted_row(one, renderer, limit.max_length, config.over_length)
    if fitted is None:
        return {**facts, "action": one.reason, "examples": []}, f"not trained: {one.reason} ({one.detail})"
    more, told = view(row, fitted, limit.max_length)
    lines = _shown(row, fitted, renderer, colour)
    if not fitted.examples:
        lines = [_beyond(example, renderer, limit.max_length, colour) for example in one.examples]
    lines += [told] if told else []
    lines += [f"max_length {limit.max_length}: {limit.reason}; over_length = {config.over_length}"]
    lines += [] if colour else ["[trained] {cut, or beyond the limit}"]
    examples = [{"ids": e.ids, "mask": e.mask} for e in fitted.examples]
    return {**facts, **more, "reason": limit.reason, "examples": examples}, "\n".join(lines)


def _renderer(project: Project, config: TrainConfig) -> tuple[Renderer, int]:
    """What the project's base is trained with, and the tokens that it takes."""
    from transformers import AutoConfig

    from tunesmith.model.load import context_length, ensure_fast_tokenizer, resolve

    base = base_path(project, project.task.base) or resolve(project.task.base)
    tokenizer = Tokenizer.load(ensure_fast_tokenizer(base, cache_dir() / "tokenizers"))
    context = context_length(AutoConfig.from_pretrained(base, local_files_only=True))
    return Renderer(tokenizer, template(project), config.train_on), context


def _shown(row: Row, fitted: Fitted, renderer: Renderer, colour: bool) -> list[str]:
    """The sequences that are trained in a row's place: trained tokens marked, and where something was cut."""
    lines = []
    for example in fitted.examples:
        text = _text(example.ids, example.mask, "trained", renderer, colour)
        if fitted.cut is not None:
            place, start, _ = fitted.cut
            before = row.messages[place].content[:start].rstrip()[-_ANCHOR:]
            text = text.replace(before + MARK, before + _marked(MARK, "cut", colour), 1)
        lines += [text, f"({sum(example.mask)} of {len(example.ids)} tokens are trained)"]
    return lines


def _beyond(example: Trainable, renderer: Renderer, limit: int, colour: bool) -> str:
    """A sequence that is not trained, with what lies beyond the limit marked."""
    return _text(list(example.ids), [place >= limit for place in range(len(example.ids))], "cut", renderer, colour)


def _text(ids: Sequence[int], marked: Sequence[bool], mark: str, renderer: Renderer, colour: bool) -> str:
    runs = itertools.groupby(zip(ids, marked, strict=True), key=lambda pair: pair[1])
    texts = [(renderer.tokenizer.decode([i for i, _ in run], keep_special=True), here) for here, run in runs]
    return "".join(_marked(text, mark, colour) if here else text for text, here in texts)


def _marked(text: str, mark: str, colour: bool) -> str:
    start, end = _MARKS[colour][mark]
    return f"{start}{text}{end}"
