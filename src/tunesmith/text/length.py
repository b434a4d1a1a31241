"""How long rows are in tokens, how long they may be, and what becomes of those that are longer.

An answer, its stop token and the template are never cut. A prompt is cut only in its context, and the place is marked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.records import Message, Row
from tunesmith.text.render import Example, Renderer
from tunesmith.text.tokenizer import Tokenizer

OverLength = Literal["skip", "trim-context", "split"]
STEP = 64  # tokens: lengths are rounded up to a multiple of it
SHARE = 0.995  # of the rows fit
MARK = " [...] "
KEPT = 40  # characters of a context that stay at each of its ends, at least: less says nothing any more
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_WORD = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class Fitted:
    """What becomes of a row. `rows`: what is trained in its place, `examples`: the same rendered; none, if too long.

    `cut`: the message that was cut, and the characters (start, end) of its content that went; None where none was.
    """

    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    action: Literal["whole", "too_long", "trimmed", "split"]
    tokens: int
    detail: str = ""
    cut: tuple[int, int, int] | None = None


def longest(examples: Sequence[Example]) -> int:
    """Tokens of the longest of a row's training sequences; 0 where there is none."""
    return max((len(example.ids) for example in examples), default=0)


def lengths(rows: Iterable[Row], renderer: Renderer) -> list[int]:
    """Exact tokens of every row; 0 for one that the template refuses, which is not trained whatever its length."""
    found = []
    for row in rows:
        try:
            found.append(longest(renderer.render(row)))
        except DataError:
            found.append(0)
    return found


@dataclass(frozen=True)
class Limit:
    """The longest sequence that is trained, in tokens, and what it was decided by. `context`: the base's."""

    max_length: int
    context: int
    longest: int
    rows: int
    reason: str

    def __str__(self) -> str:
        known = f"the longest of {self.rows:,} rows has {self.longest:,} tokens, the base takes {self.context:,}"
        return f"max_length {self.max_length:,}: {self.reason} ({known})"


def decide_length(found: Sequence[int], context: int, max_length: int | None) -> Limit:
    """`max_length` where it is set, else from the exact tokens of the rows (0: cannot be trained at all).

    Raises UsageError where it exceeds the base's context: such a row would be cut or computed wrongly.
    """
    if max_length is not None and max_length > context:
        what = f"max_length = {max_length} exceeds the base's context of {context} tokens"
        raise UsageError(what, fix=f"max_length = {context} in [train], or leave it out: it is decided from the rows")
    chosen = max_length or fitting_length(found, context)
    most = max(found, default=0)
    if max_length is not None:
        reason = "as set"
    elif most <= chosen:
        reason = "every row fits"
    else:
        reason = "all that the base takes" if chosen == context else f"{100 * SHARE:.1f} % of the rows fit"
    return Limit(chosen, context, most, sum(number > 0 for number in found), reason)


def fitting_length(found: Sequence[int], context: int) -> int:
    """The automatic max_length: the smallest multiple of 64 that 99.5 % of the rows fit, at most the base's context."""
    ordered = sorted(number for number in found if number)
    if not ordered:
        return context
    enough = ordered[math.ceil(SHARE * len(ordered)) - 1]
    return min(context, STEP * math.ceil(enough / STEP))


def fit(
    row: Row,
    renderer: Renderer,
    max_length: int,
    policy: OverLength = "skip",
    whole: Sequence[Example] | None = None,
) -> Fitted:
    """A row that fits as it is; a longer one by the policy. `whole`: the row's rendering, where there is one already.

    Raises UsageError for a policy that does not go with the kind of row, DataError where the template refuses it.
    """
    check_policy(row, policy)
    examples = tuple(renderer.render(row) if whole is None else whole)
    tokens = longest(examples)
    if tokens <= max_length:
        return Fitted((row,), examples, "whole", tokens)
    if policy == "skip":
        return _too_long(tokens, max_length)
    if policy == "split":
        return _split(row, renderer, max_length, tokens)
    return _trimmed(row, renderer, max_length, tokens)


def _too_long(tokens: int, max_length: int, why: str = "") -> Fitted:
    return Fitted((), (), "too_long", tokens, f"{tokens} tokens, the limit is {max_length}{why}")


def check_policy(row: Row, policy: OverLength) -> None:
    """Raise UsageError where the policy would cut a row that it is not for."""
    where = f"{row.meta.source}:{row.meta.line}"
    if policy == "split" and not row.text:
        what = 'over_length = "split" is for raw text: a part of a conversation has no answer, or not its question'
        raise UsageError(what, where=where, fix='over_length = "skip", or "trim-context"')
    if policy == "trim-context" and row.text:
        what = 'over_length = "trim-context" is for prompts, and raw text has none'
        raise UsageError(what, where=where, fix='over_length = "skip", or "split"')


def context_span(text: str) -> tuple[int, int]:
    """The characters (start, end) of a user's message that are its context: what the instruction is about.

    `collect` joins an instruction and its input by an empty line. So of several paragraphs the first is the instruction
    and the rest is context, unless the last one alone asks (ends with a question mark): then that is the instruction. A
    single paragraph is all context. What is cut is its middle, so that what stands at either end stays.
    """
    gaps = [match.span() for match in _PARAGRAPH.finditer(text.rstrip())]
    gaps = [gap for gap in gaps if gap[0] > 0]
    if not gaps:
        return 0, len(text)
    first, last = text[: gaps[0][0]], text.rstrip()
    asks_last = last.endswith(("?", "？")) and not first.rstrip().endswith(("?", "？"))
    return (0, gaps[-1][0]) if asks_last else (gaps[0][1], len(text))


def _trimmed(row: Row, renderer: Renderer, max_length: int, tokens: int) -> Fitted:
    """The row with as much of its context as fits."""
    place = max((i for i, m in enumerate(row.messages) if m.role == "user"), default=-1)
    if place < 0:
        return _too_long(tokens, max_length, "; there is no user's message to trim")
    text = row.messages[place].content
    start, end = context_span(text)
    parts = _parts(text[start:end])

    def cut(kept: int) -> tuple[int, int]:
        """What goes when this many parts stay: half of them before it, half after."""
        head, tail = parts[: kept - kept // 2], parts[len(parts) - kept // 2 :]
        return start + sum(map(len, head)), end - sum(map(len, tail))

    def fits(kept: int) -> bool:
        return longest(renderer.render(_without(row, place, *cut(kept)))) <= max_length

    kept = _most(fits, len(parts) - 1)
    a, b = cut(kept)
    if kept == 0 or min(a - start, end - b) < KEPT:
        return _too_long(tokens, max_length, "; the rest of it is too long without its context")
    made = _without(row, place, a, b)
    detail = f"{tokens} tokens, the limit is {max_length}; {b - a} of {end - start} characters of context were cut"
    return Fitted((made,), tuple(renderer.render(made)), "trimmed", tokens, detail, (place, a, b))


def _parts(text: str) -> list[str]:
    """Words with the white space before them; characters where a text is written without spaces."""
    words = _WORD.findall(text)
    return words if len(words) * 20 > len(text) else list(text)


def _without(row: Row, place: int, start: int, end: int) -> Row:
    message = row.messages[place]
    content = message.content[:start].rstrip() + MARK + message.content[end:].lstrip()
    messages = (*row.messages[:place], Message(message.role, content), *row.messages[place + 1 :])
    return replace(row, messages=messages)


def _most(fits: Callable[[int], bool], high: int) -> int:
    """The largest number up to `high` that fits, by halving; 0 where none does."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _split(row: Row, renderer: Renderer, max_length: int, tokens: int) -> Fitted:
    extra = tokens - len(renderer.tokenizer.encode(row.text))  # the tokens around a text: its end, and often a start
    if max_length <= extra:
        return _too_long(tokens, max_length)
    pieces = split_text(row.text, renderer.tokenizer, max_length - extra)
    rows = tuple(replace(row, text=piece) for piece in pieces)
    examples = tuple(example for made in rows for example in renderer.render(made))
    return Fitted(rows, examples, "split", tokens, f"{tokens} tokens, the limit is {max_length}; {len(rows)} pieces")


def split_text(text: str, tokenizer: Tokenizer, limit: int) -> list[str]:
    """Cut a text into pieces of at most `limit` tokens that are, one after the other, the text.

    A piece ends with a paragraph where one ends in its second half, else with a sentence, else with a word. Raises
    DataError where a single character takes more than `limit` tokens.
    """
    parts = [part for word in _WORD.findall(text) for part in _small(word, tokenizer, limit)]
    counts = [len(ids) for ids in tokenizer.encode_many(parts)]
    pieces = []
    start = 0
    while start < len(parts):
        stop, room = start, limit
        while stop < len(parts) and counts[stop] <= room:
            room -= counts[stop]
            stop += 1
        stop = _good_end(parts, start, max(stop, start + 1))
        while stop > start + 1 and len(tokenizer.encode("".join(parts[start:stop]))) > limit:
            stop -= 1  # parts may take more tokens together: a tokenizer that does not cut at words
        pieces.append("".join(parts[start:stop]))
        start = stop
    return pieces


def _small(word: str, tokenizer: Tokenizer, limit: int) -> list[str]:
    """A word, or its halves where it alone is too long."""
    if len(tokenizer.encode(word)) <= limit:
        return [word]
    if len(word) == 1:
        raise DataError(f"{word!r} takes more than {limit} tokens", fix="raise max_length")
    middle = len(word) // 2
    return [*_small(word[:middle], tokenizer, limit), *_small(word[middle:], tokenizer, limit)]


def _good_end(parts: Sequence[str], start: int, stop: int) -> int:
    """Where a piece had better end, at most at `stop`."""
    if stop == len(parts):
        return stop
    second_half = range(stop, start + (stop - start) // 2, -1)
    for ends in (_ends_paragraph, _ends_sentence):
        found = next((i for i in second_half if ends(parts[i - 1], parts[i])), None)
        if found:
            return found
    return stop


def _ends_paragraph(before: str, after: str) -> bool:
    return _PARAGRAPH.match(after) is not None


def _ends_sentence(before: str, after: str) -> bool:
    return before.rstrip()[-1:] in tuple(".!?。！？") and (after[:1].isspace() or before.rstrip()[-1:] in "。！？")


def view(row: Row, fitted: Fitted, max_length: int) -> tuple[dict[str, object], str]:
    """What is cut of a row, and where: (facts, lines for people). No line where the row fits."""
    left = longest(fitted.examples) if fitted.action == "trimmed" else fitted.tokens
    facts: dict[str, object] = {"tokens": fitted.tokens, "max_length": max_length, "action": fitted.action}
    facts["truncated_tokens"] = fitted.tokens - left
    if fitted.action == "whole":
        return facts, ""
    lines = [f"{fitted.action.replace('_', ' ')}: {fitted.detail}"]
    if fitted.cut is not None:
        message, start, end = fitted.cut
        gone = row.messages[message].content[start:end]
        facts |= {"message": message, "start": start, "end": end, "removed": gone}
        lines.append(f"  cut from message {message + 1}, characters {start} to {end}: {_ends(gone)}")
    if fitted.action == "split":
        facts["pieces"] = [len(piece.text) for piece in fitted.rows]
    if fitted.action == "too_long":
        lines.append(f"  {fitted.tokens - max_length} tokens too many: the row is not trained")
    return facts, "\n".join(lines)


def _ends(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:36]} ... {line[-36:]}"
