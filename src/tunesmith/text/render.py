"""The one renderer: messages to token ids and loss mask, for training, evaluation and serving alike.

The template is rendered once a shape of conversation with a placeholder in place of each content. What lies between the
placeholders is literal and may hold control tokens; what fills them is content and never does. Text is tokenized in
runs that end at control tokens and where an answer begins and ends, so the prompt that is trained has exactly the ids
of the prompt that is served, and a run of one prompt is tokenized whole, as every other tool does.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import jinja2

from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.records import Message, Row
from tunesmith.text.template import Template, template_source
from tunesmith.text.tokenizer import Tokenizer

TrainOn = Literal["completion", "last", "all"]
_Span = tuple[int, int]
_SLOT = "\ue000{}\ue001"  # private-use characters: no template writes them
_SLOTS = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence: token ids, and for each whether the model is trained to predict it."""

    ids: list[int]
    mask: list[bool]
    row_id: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A control token (`id`), or a run of literals (str) and contents (int: index of the message)."""

    id: int | None
    parts: tuple[str | int, ...]
    trained: bool


@dataclass(frozen=True)
class _Plan:
    """How conversations of one shape become ids: the rendering with slots for the contents, and its cut pieces."""

    skeleton: str
    pieces: tuple[_Piece, ...]


class Renderer:
    """Renders for one tokenizer and template. `hash` names both: equal hash, equal ids."""

    def __init__(self, tokenizer: Tokenizer, template: str = "auto", train_on: TrainOn = "completion") -> None:
        self.tokenizer, self.train_on = tokenizer, train_on
        self.template = Template(template_source(template, tokenizer), tokenizer)
        tokenizer.chat_template = self.template.source  # saved with the model: other tools make the same prompt
        self._plans: dict[tuple[tuple[str, ...], bool], list[_Plan]] = {}
        self.stop_ids = (self._stop_id(),)

    @property
    def hash(self) -> str:
        names = f"{self.tokenizer.bos_token} {self.tokenizer.eos_token}"
        blob = "\0".join([self.template.source, names, self.tokenizer.backend.to_str()])
        return hashlib.sha256(blob.encode()).hexdigest()

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """What the model is given, as text; for people and for the parity receipt."""
        return self.template.render([m.to_json() for m in self._accepted(messages)], generate=True)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the prompt, ending where the answer begins."""
        messages = self._accepted(messages)
        (plan,) = self._plan(tuple(m.role for m in messages), generate=True)
        return self._fill(plan, self._contents(messages, plan, generate=True))[0]

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
        contents = self._contents(messages, plans[-1], generate=False)
        return [Example(*self._fill(plan, contents), row.id) for plan in plans]

    def _stop_id(self) -> int:
        """The token that ends an answer: what the template writes right after one."""
        plan = self._plan(("user", "assistant"), generate=False)[0]
        last = [p for p in plan.pieces if p.trained][-1]
        assert last.id is not None
        return last.id

    def _accepted(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Fold a system message into the first user turn where the template takes no system role."""
        if not messages or messages[0].role != "system" or len(messages) < 2:
            return messages
        probe = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
        try:
            if "a" in self.template.render(probe, generate=True).replace("b", ""):
                return messages
        except jinja2.TemplateError:
            pass
        first = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
        return [first, *messages[2:]]

    def _plan(self, roles: tuple[str, ...], *, generate: bool) -> list[_Plan]:
        key = (roles, generate)
        if key not in self._plans:
            self._plans[key] = [self._pieces(*parts) for parts in self._skeletons(roles, generate)]
        return self._plans[key]

    def _skeletons(self, roles: tuple[str, ...], generate: bool) -> Iterator[tuple[str, set[int], list[_Span]]]:
        """(skeleton, borders, trained spans): one, or one an answer if the prompts are not prefixes of the whole."""
        whole = self._skeleton(roles, generate)
        if generate:
            yield whole, self._borders(whole, roles), []
            return
        answers = [i for i, role in enumerate(roles) if role == "assistant"]
        wanted = answers[-1:] if self.train_on == "last" else answers
        prompts = {i: self._skeleton(roles[:i], True) for i in answers}
        if all(whole.startswith(prompts[i]) for i in answers):
            spans = [self._span(whole, i, len(prompts[i])) for i in wanted]
            yield whole, self._borders(whole, roles), [(0, len(whole))] if self.train_on == "all" else spans
            return
        for i in wanted:
            part = self._skeleton(roles[: i + 1], False)
            if not part.startswith(prompts[i]):
                fix = "--template plain, or a template whose generation prompt begins the answer it renders"
                raise ModelError("the chat template's generation prompt is not how it renders an answer", fix=fix)
            span = self._span(part, i, len(prompts[i]))
            yield part, self._borders(part, roles[: i + 1]), [(0, len(part)) if self.train_on == "all" else span]

    def _borders(self, skeleton: str, roles: Sequence[str]) -> set[int]:
        """Where tokenization is cut: around every answer, in a prompt's history as in training."""
        borders = {0, len(skeleton)}
        for i in (i for i, role in enumerate(roles) if role == "assistant"):
            slot, prompt = _SLOT.format(i), self._skeleton(roles[:i], True)
            at = skeleton.find(slot)
            borders |= {at, at + len(slot)} if at >= 0 else set()
            borders |= {len(prompt)} if skeleton.startswith(prompt) else set()
        return borders

    def _skeleton(self, roles: Sequence[str], generate: bool) -> str:
        messages = [{"role": role, "content": _SLOT.format(i)} for i, role in enumerate(roles)]
        try:
            return self.template.render(messages, generate=generate)
        except (jinja2.TemplateError, TypeError) as error:
            what = f"the chat template refuses the roles {', '.join(roles)}: {error}"
            raise DataError(what, fix="change the order of the messages, or use --template plain") from error

    def _span(self, skeleton: str, answer: int, start: int) -> tuple[int, int]:
        """From where the generation prompt ends to the end of the stop token after the answer."""
        slot = _SLOT.format(answer)
        at = skeleton.find(slot, start)
        if at < 0:
            raise ModelError("the chat template does not write the assistant's content", fix="--template plain")
        end = at + len(slot)
        for text, control in self.tokenizer.split_control(_SLOTS.split(skeleton[end:])[0]):
            end += len(text)
            if control is not None:
                return start, end
            if text.strip():
                break
        what = "the chat template writes no stop token after an answer, so the model would never learn to stop"
        raise ModelError(what, fix="--template plain, or end the answer with {{ eos_token }} in a .jinja file")

    def _pieces(self, skeleton: str, borders: set[int], spans: list[_Span]) -> _Plan:
        cuts = sorted(borders | {b for span in spans for b in span})
        pieces: list[_Piece] = []
        for start, end in itertools.pairwise(cuts):
            trained = any(a <= start and end <= b for a, b in spans)
            pieces += self._runs(skeleton[start:end], trained)
        return _Plan(skeleton, tuple(pieces))

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

    def _contents(self, messages: Sequence[Message], plan: _Plan, *, generate: bool) -> list[str]:
        """The contents as the template writes them: as they are, or stripped. Anything else is refused."""
        real = self.template.render([m.to_json() for m in messages], generate=generate)
        for contents in ([m.content for m in messages], [m.content.strip() for m in messages]):
            parts = _SLOTS.split(plan.skeleton)
            if "".join(contents[int(p)] if n % 2 else p for n, p in enumerate(parts)) == real:
                return contents
        what = "the chat template rewrites this row's text, so what is trained would not be what was written"
        raise DataError(what, fix="--template plain, or take the template's own markup out of the row")

    def _fill(self, plan: _Plan, contents: list[str]) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        mask: list[bool] = []
        table = self.tokenizer.control
        pieces = plan.pieces
        for n, piece in enumerate(pieces):
            if piece.id is not None:
                new = [piece.id]
            else:
                text = "".join(p if isinstance(p, str) else contents[p] for p in piece.parts)
                before, after = pieces[n - 1] if n else None, pieces[n + 1] if n + 1 < len(pieces) else None
                text = text.lstrip() if _control(before, table, "rstrip") else text
                text = text.rstrip() if _control(after, table, "lstrip") else text
                new = self.tokenizer.encode(text, start=not ids) if text else []
            ids += new
            mask += [piece.trained] * len(new)
        return ids, mask


def _control(piece: _Piece | None, table: Mapping[str, object], side: str) -> bool:
    """Whether a neighbour is a control token that swallows the white space on its `side`."""
    return piece is not None and piece.id is not None and bool(getattr(table[str(piece.parts[0])], side))


def check_example(example: Example, renderer: Renderer) -> str | None:
    """Why this example must not be trained, or None. Runs on every example before training."""
    tokenizer = renderer.tokenizer
    if not any(example.mask):
        return "no token of it is trained"
    last = max(i for i, trained in enumerate(example.mask) if trained)
    if example.ids[last] not in (*renderer.stop_ids, tokenizer.eos_id):
        return f"it ends with token {example.ids[last]}, not with a stop token"
    if tokenizer.bos_id not in (None, tokenizer.eos_id, *renderer.stop_ids) and example.ids.count(tokenizer.bos_id) > 1:
        return "it holds more than one BOS token"
    return None
