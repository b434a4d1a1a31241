"""The one renderer: messages to token ids and loss mask, for training, evaluation and serving alike.

The template is rendered once a shape of conversation with a placeholder in place of each content. What lies between the
placeholders is literal and may hold control tokens; what fills them is content and never does. Text is tokenized in
runs that end at control tokens and where an answer begins, so the prompt that is trained has exactly the ids of the
prompt that is served, and everything between is tokenized whole, as every other tool does.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jinja2

from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.records import Message, Row, pair
from tunesmith.text.template import Template, template_source
from tunesmith.text.tokenizer import Tokenizer

TrainOn = Literal["completion", "last", "all"]
_Span = tuple[int, int]
_SLOT = "\ue000{}\ue001"  # private-use characters: no template writes them
_SLOTS = re.compile("\ue000(\\d+)\ue001")
_TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)  # what templates do to a content


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence: token ids, and for each whether the model is trained to predict it."""

    ids: list[int]
    mask: list[bool]
    row_id: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A control token (`id`), or a run of literals (str) and contents (int: index of the message).

    `start`: the tokenizer begins a text here. `trims`: what the control tokens at its two ends swallow.
    """

    id: int | None
    parts: tuple[str | int, ...]
    trained: bool
    start: bool = False
    trims: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class _Plan:
    """How the first `turns` messages of one shape become ids: the rendering with slots, and its cut pieces."""

    turns: int
    skeleton: str
    pieces: tuple[_Piece, ...]


class Renderer:
    """Renders for one tokenizer and template. `hash` names both: equal hash, equal ids."""

    def __init__(self, tokenizer: Tokenizer, template: str = "auto", train_on: TrainOn = "completion") -> None:
        self.tokenizer, self.train_on = tokenizer, train_on
        self.template = Template(template_source(template, tokenizer), tokenizer)
        tokenizer.use_template(self.template.source)  # saved with the model: other tools make the same prompt
        self._plans: dict[tuple[tuple[str, ...], bool], list[_Plan]] = {}
        self._takes_system = self._system_role()
        self.stop_ids = (self._stop_id(),)

    @property
    def hash(self) -> str:
        names = f"{self.tokenizer.bos_token} {self.tokenizer.eos_token} {self.tokenizer.adds_bos}"
        blob = "\0".join([self.template.source, names, self.tokenizer.backend.to_str()])
        return hashlib.sha256(blob.encode()).hexdigest()

    @property
    def answer_overhead(self) -> int:
        """Tokens that a model writes besides an answer's text: the stop token, and what the template begins it with."""
        (example,) = self.render(pair("a", "a"))
        end = max(place for place, trained in enumerate(example.mask) if trained) + 1
        return end - len(self.prompt([Message("user", "a")])) - len(self.tokenizer.encode("a", start=False))

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """What the model is given, as text; for people and for the parity receipt."""
        return self.template.render([m.to_json() for m in self._accepted(messages)], generate=True)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the prompt, ending where the answer begins."""
        messages = self._accepted(messages)
        (plan,) = self._plan(tuple(m.role for m in messages), generate=True)
        return self._fill(plan, messages, generate=True)[0]

    def render(self, row: Row) -> list[Example]:
        """Training sequences of a row: one, or one an answer where the template rewrites earlier turns.

        Raises DataError when the template refuses the row or changes its contents.
        """
        if row.text:
            bos = self.tokenizer.bos_id if self.tokenizer.adds_bos else None
            ids = [*([] if bos is None else [bos]), *self.tokenizer.encode(row.text), self.tokenizer.eos_id]
            return [Example(ids, [True] * len(ids), row.id)]
        messages = self._accepted(row.messages)
        plans = self._plan(tuple(m.role for m in messages), generate=False)
        return [Example(*self._fill(plan, messages[: plan.turns], generate=False), row.id) for plan in plans]

    def _stop_id(self) -> int:
        """The token that ends an answer: what the template writes right after one."""
        try:
            whole = self._skeleton(("user", "assistant"), False)
        except DataError as error:
            raise ModelError(error.what, fix="--template plain") from error
        return self._stop(whole, 1)[1]

    def _system_role(self) -> bool:
        """Whether the template writes a system message."""
        probe = [{"role": role, "content": _SLOT.format(i)} for i, role in enumerate(("system", "user"))]
        try:
            return _SLOT.format(0) in self.template.render(probe, generate=True)
        except jinja2.TemplateError:
            return False

    def _accepted(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Fold a system message into the first user turn where the template takes no system role."""
        if self._takes_system or len(messages) < 2 or messages[0].role != "system":
            return messages
        if messages[1].role != "user":
            return [Message("user", messages[0].content), *messages[1:]]
        return [Message("user", f"{messages[0].content}\n\n{messages[1].content}"), *messages[2:]]

    def _plan(self, roles: tuple[str, ...], *, generate: bool) -> list[_Plan]:
        key = (roles, generate)
        if key not in self._plans:
            self._plans[key] = list(self._skeletons(roles, generate))
        return self._plans[key]

    def _skeletons(self, roles: tuple[str, ...], generate: bool) -> Iterator[_Plan]:
        """One plan of the whole, or one an answer where the template rewrites an answer once it is not the last."""
        whole = self._skeleton(roles, generate)
        answers = [] if generate else [i for i, role in enumerate(roles) if role == "assistant"]
        wanted = answers[-1:] if self.train_on == "last" else answers
        parts = {i: self._skeleton(roles[: i + 1], False) for i in wanted}
        spans = {i: self._span(part, roles[:i]) for i, part in parts.items()}
        if all(whole.startswith(parts[i][:end]) for i, (_, end) in spans.items()):
            yield self._pieces(whole, roles, self._trained(list(spans.values())))
        else:
            for i, part in parts.items():
                yield self._pieces(part, roles[: i + 1], self._trained([spans[i]]))

    def _trained(self, spans: list[_Span]) -> list[_Span]:
        """The spans of the answers; for `all`, everything up to the last stop token."""
        return [(0, spans[-1][1])] if self.train_on == "all" and spans else spans

    def _borders(self, skeleton: str, roles: Sequence[str]) -> set[int]:
        """Where tokenization is cut: where every answer begins, in a prompt's history as in training."""
        prompts = [self._skeleton(roles[:i], True) for i, role in enumerate(roles) if role == "assistant"]
        return {0, len(skeleton), *(len(prompt) for prompt in prompts if skeleton.startswith(prompt))}

    def _skeleton(self, roles: Sequence[str], generate: bool) -> str:
        messages = [{"role": role, "content": _SLOT.format(i)} for i, role in enumerate(roles)]
        try:
            text = self.template.render(messages, generate=generate)
        except jinja2.TemplateError as error:
            what = f"the chat template refuses the roles {', '.join(roles)}: {error}"
            raise DataError(what, fix="change the order of the messages, or use --template plain") from error
        lost = [role for i, role in enumerate(roles) if _SLOT.format(i) not in text]
        if lost:
            what = f"the chat template does not write the content of a message of the role {lost[0]}"
            raise DataError(what, fix="take the message out, or use --template plain")
        return text

    def _span(self, skeleton: str, roles: Sequence[str]) -> _Span:
        """The answer that follows `roles`: from where its generation prompt ends to the end of its stop token."""
        prompt = self._skeleton(roles, True)
        if not skeleton.startswith(prompt):
            fix = "--template plain, or a template whose generation prompt begins the answer it renders"
            raise ModelError("the chat template's generation prompt is not how it renders an answer", fix=fix)
        return len(prompt), self._stop(skeleton, len(roles))[0]

    def _stop(self, skeleton: str, answer: int) -> tuple[int, int]:
        """Where the token ends that stops an answer, and its id."""
        slot = _SLOT.format(answer)
        end = skeleton.index(slot) + len(slot)
        for text, control in self.tokenizer.split_control(_SLOTS.split(skeleton[end:])[0]):
            end += len(text)
            if control is not None:
                return end, control
            if text.strip():
                break
        what = "the chat template writes no stop token after an answer, so the model would never learn to stop"
        raise ModelError(what, fix="--template plain, or end the answer with {{ eos_token }} in a .jinja file")

    def _pieces(self, skeleton: str, roles: tuple[str, ...], spans: list[_Span]) -> _Plan:
        borders = self._borders(skeleton, roles)
        cuts = sorted(borders | {b for span in spans for b in span})
        pieces: list[_Piece] = []
        for start, end in itertools.pairwise(cuts):
            trained = any(a <= start and end <= b for a, b in spans)
            found = list(self._runs(skeleton[start:end], trained))
            for n, piece in enumerate(found):
                first = not pieces or (self.tokenizer.restarts and pieces[-1].id is not None)
                before = [] if n == 0 and start in borders else pieces[-1:]  # an answer keeps its white space
                trims = self._swallows(before, "rstrip"), self._swallows(found[n + 1 : n + 2], "lstrip")
                pieces.append(replace(piece, start=first, trims=trims))
        return _Plan(len(roles), skeleton, tuple(pieces))

    def _swallows(self, neighbour: list[_Piece], side: str) -> bool:
        """Whether the piece beside a run is a control token that swallows the white space on its `side`."""
        return any(p.id is not None and getattr(self.tokenizer.control[str(p.parts[0])], side) for p in neighbour)

    def _runs(self, text: str, trained: bool) -> Iterator[_Piece]:
        run: list[str | int] = []
        for n, part in enumerate(_SLOTS.split(text)):
            if n % 2:
                run.append(int(part))
                continue
            for literal, control in self.tokenizer.split_control(part):
                if control is None:
                    run.append(literal)
                    continue
                if run:
                    yield _Piece(None, tuple(run), trained)
                run = []
                yield _Piece(control, (literal,), trained)
        if run:
            yield _Piece(None, tuple(run), trained)

    def _contents(self, messages: Sequence[Message], plan: _Plan, *, generate: bool) -> dict[int, str]:
        """The contents as the template writes them: as they are, or stripped. Anything else is refused."""
        try:
            real = self.template.render([m.to_json() for m in messages], generate=generate)
        except jinja2.TemplateError as error:
            raise DataError(f"the chat template refuses this row: {error}", fix="--template plain") from error
        parts = _SLOTS.split(plan.skeleton)
        contents: dict[int, str] = {}
        fits = real.startswith(parts[0])
        at = len(parts[0])
        for slot, literal in zip(map(int, parts[1::2]), parts[2::2], strict=True):
            written = [trim(messages[slot].content) for trim in _TRIMS]
            choices = [contents[slot]] if slot in contents else written
            chosen = next((c for c in choices if real.startswith(c + literal, at)), None)
            fits = fits and chosen is not None
            contents[slot] = chosen or ""
            at += len(contents[slot]) + len(literal)
        if fits and at == len(real):
            return contents
        what = "the chat template rewrites this row's text, so what is trained would not be what was written"
        raise DataError(what, fix="--template plain, or take the template's own markup out of the row")

    def _fill(self, plan: _Plan, messages: Sequence[Message], *, generate: bool) -> tuple[list[int], list[bool]]:
        contents = self._contents(messages, plan, generate=generate)
        ids: list[int] = []
        mask: list[bool] = []
        for piece in plan.pieces:
            if piece.id is not None:
                new = [piece.id]
            else:
                text = "".join(p if isinstance(p, str) else contents[p] for p in piece.parts)
                text = text.lstrip() if piece.trims[0] else text
                text = text.rstrip() if piece.trims[1] else text
                new = self.tokenizer.encode(text, start=piece.start) if text else []
            ids += new
            mask += [piece.trained] * len(new)
        return ids, mask


def check_example(example: Example, renderer: Renderer) -> str | None:
    """Why this example must not be trained, or None. Runs on every example before training."""
    tokenizer = renderer.tokenizer
    if not any(example.mask[1:]):  # the first token is never predicted
        return "no token of it is trained"
    last = max(i for i, trained in enumerate(example.mask) if trained)
    if example.ids[last] not in (*renderer.stop_ids, tokenizer.eos_id):
        return f"it ends with token {example.ids[last]}, not with a stop token"
    # one before every turn is as the template wants it: Llama 2's, and SmolLM2's, whose BOS is <|im_start|>
    bos = tokenizer.bos_id
    if bos not in (None, tokenizer.eos_id) and (bos, bos) in itertools.pairwise(example.ids):
        return "it holds two BOS tokens in a row"
    return None
