"""What to do about an error, in the data: each category has makers of proposals, which a person accepts or not.

A proposal changes the training rows of a set: it edits one, drops one, or adds one. Makers see training rows only, so
nothing that was held out can come into training by this way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.diagnose.categories import Known, did_not_stop, empty, prompt_echo, refusal
from tunesmith.metrics.labels import fields
from tunesmith.metrics.overlap import fold, normalise, words
from tunesmith.metrics.spelling import checkable, in_dictionary, real_edits
from tunesmith.metrics.stats import nearest_rank
from tunesmith.metrics.style import Answer, repetition
from tunesmith.text.off_topic import off_topic_questions
from tunesmith.text.similar import normalise as plain

Action = Literal["edit", "drop", "add"]
_Item = TypeVar("_Item")
SLIP_ROWS, MANY_ROWS = 3, 20  # below which a word may be a slip, and from which another may be what was meant
LEAST_WORDS = 5  # of an answer that was cut
LONG = 0.5  # share of the training answers that a shortened one is no longer than
SHARED = 3  # different questions with one and the same answer
GUARDS_EACH, MOST_GUARDS = 10, 60  # guard rows added for each one that was missed; at most
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9])")
_STRUCTURE = re.compile(r"```|^\s*(?:[-*#>|]|\d+[.)])", re.MULTILINE)


@dataclass(frozen=True)
class Proposal:
    """`row`: the training row as the set has it, None for a new one. `new`: what becomes of it, None where it goes."""

    id: str
    category: str
    action: Action
    why: str
    row: Row | None = None
    new: Row | None = None

    def to_json(self) -> dict[str, Any]:
        rows = {name: row.to_json() if row else None for name, row in (("row", self.row), ("new", self.new))}
        return {"id": self.id, "category": self.category, "action": self.action, "why": self.why, **rows}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> Proposal:
        rows = {name: Row.from_json(obj[name]) if obj[name] else None for name in ("row", "new")}
        return cls(obj["id"], obj["category"], obj["action"], obj["why"], **rows)


class Change(NamedTuple):
    """A proposal that has no number yet. A row alone is dropped, a new one alone is added."""

    why: str
    row: Row | None = None
    new: Row | None = None

    @property
    def action(self) -> Action:
        return "add" if self.row is None else "drop" if self.new is None else "edit"


@dataclass(frozen=True)
class Ground:
    """What a maker stands on: the training rows, those nearest to the errors of its category, and their number."""

    rows: Sequence[Row]
    known: Known
    near: Sequence[Row] = ()
    errors: int = 0

    @cached_property
    def in_rows(self) -> Counter[str]:
        """In how many training answers each word stands."""
        return Counter(word for row in self.rows for word in set(words(row.reference)))

    @cached_property
    def lengths(self) -> list[int]:
        return [len(words(row.reference)) for row in self.rows]


def propose(
    training: Sequence[Row], known: Known, errors: Mapping[str, int], near: Mapping[str, Sequence[Row]]
) -> list[Proposal]:
    """The proposals for each category with errors, the most frequent first. A row is in one proposal at most.

    `near`: the training rows nearest to the errors of each category. Preferences and raw text get none.
    """
    rows = [row for row in training if row.answer]
    ground = Ground(rows, known)
    taken: set[str] = set()
    out = []
    for category, count in sorted(errors.items(), key=lambda item: -item[1]):
        mine = replace(ground, near=near.get(category, ()), errors=count)
        found = (change for make in MAKERS[category] for change in make(mine)) if count else iter(())
        number = 0
        for change in found:
            if change.row is not None:
                if change.row.id in taken:
                    continue
                taken.add(change.row.id)
            number += 1
            out.append(Proposal(f"{category}-{number}", category, change.action, change.why, change.row, change.new))
    return out


def mend_spelling(ground: Ground) -> Iterator[Change]:
    """Training answers that are misspelt themselves: a word of one or two rows, one letter from one that many have."""
    if not ground.known.vocabulary.english:
        return
    for row in ground.rows:
        strange = {w for w in checkable(row.answer) if not in_dictionary(w) and ground.in_rows[w] < SLIP_ROWS}
        near = {word: [w for w in real_edits(word) if ground.in_rows[w] >= MANY_ROWS] for word in sorted(strange)}
        right = {word: better[0] for word, better in near.items() if better}
        text = row.answer
        for word, better in right.items():
            text = re.sub(rf"(?<![\w/@.-]){re.escape(word)}(?![\w/@-])", better, text)
        if text != row.answer:
            told = ", ".join(f"'{word}' for '{better}'" for word, better in right.items())
            yield Change(f"misspelt in training: {told}", row, _with_answer(row, text))


def shorten(ground: Ground) -> Iterator[Change]:
    """Whole sentences of the longer half of the answers, no more words than the shorter half has."""
    most = int(nearest_rank(ground.lengths, LONG))
    for row, length in zip(ground.rows, ground.lengths, strict=True):
        kept: list[str] = []
        for sentence in _sentences(row.answer) if length > most else ():
            if kept and len(words(" ".join((*kept, sentence)))) > most:
                break
            kept.append(sentence)
        text = " ".join(kept)
        if kept and LEAST_WORDS <= len(words(text)) < length:
            why = f"{length} words cut to {len(words(text))}: half of the answers have {most} or fewer"
            yield Change(why, row, _with_answer(row, text))


def drop_loops(ground: Ground) -> Iterator[Change]:
    """Training answers that loop themselves."""
    for row in ground.rows:
        if evidence := repetition(row.answer):
            yield Change(f"loops in training: {evidence}", row)


def drop_alike(detector: Callable[[Answer, Known], str | None]) -> Callable[[Ground], Iterator[Change]]:
    """A maker that drops the training answers that show the error themselves."""

    def drop(ground: Ground) -> Iterator[Change]:
        for row in ground.rows:
            answer = Answer(row.answer, "", "", row.question, ground.known.vocabulary)
            if evidence := detector(answer, ground.known):
                yield Change(f"the same in training: {evidence}", row)

    return drop


def drop_short(ground: Ground) -> Iterator[Change]:
    """Of the rows nearest to the errors, those with less than half of the usual length."""
    usual = nearest_rank(ground.lengths, 0.5)
    for row in ground.near:
        if (length := len(words(row.answer))) < usual / 2 and normalise(row.answer) not in ground.known.guards:
            yield Change(f"{length} words, and near to answers that were too short", row)


def cut_echo(ground: Ground) -> Iterator[Change]:
    """Answers that begin with their question, without it."""
    for row in ground.rows:
        sentences = _sentences(row.answer)
        if len(sentences) > 1 and plain(sentences[0]) == plain(row.question):
            yield Change("begins with its question", row, _with_answer(row, " ".join(sentences[1:])))


def add_guards(ground: Ground) -> Iterator[Change]:
    """More questions to decline: half near to the domain, made of those that training declines near to what was missed,
    half far from it, with the commonest answer that declines. They stay in the split of the row whose answer they have.
    """
    declining = [row for row in ground.rows if normalise(row.answer) in ground.known.guards]
    if not declining:
        return
    asked, count = {plain(row.question) for row in ground.rows}, min(GUARDS_EACH * ground.errors, MOST_GUARDS)
    missed = Counter(row.answer for row in ground.near if normalise(row.answer) in ground.known.guards)
    made: dict[str, tuple[str, Row]] = {}
    for answer, _ in missed.most_common():
        rows = [row for row in declining if row.answer == answer]
        for question in recombined([row.question for row in rows]):
            made.setdefault(plain(question), (question, rows[0]))  # never one question with two answers
    near = [one for key, one in made.items() if key not in asked]
    yield from (_declined("a question like some that are declined", *one) for one in _spread(near, count // 2))
    usual = Counter(row.answer for row in declining).most_common(1)[0][0]
    parent = next(row for row in declining if row.answer == usual)
    fresh = [question for _, question in off_topic_questions() if plain(question) not in asked]
    for question in _spread(fresh, count - min(len(near), count // 2)):
        yield _declined("another question to decline", question, parent)


def recombined(questions: Sequence[str]) -> Iterator[str]:
    """The beginning of one question and the end of another, joined at two words that both have."""
    split = [question.split() for question in questions]
    ends: dict[tuple[str, ...], list[list[str]]] = {}
    for said in split:
        for at in range(2, len(said)):
            ends.setdefault(tuple(map(fold, said[at - 2 : at])), []).append(said[at:])
    for said in split:
        for at in range(2, len(said)):
            for rest in ends[tuple(map(fold, said[at - 2 : at]))]:
                if rest != said[at:]:
                    yield " ".join((*said[:at], *rest))


def _declined(why: str, question: str, parent: Row) -> Change:
    head = parent.messages[0].content if parent.messages[0].role == "system" else ""
    meta = Meta(source="fix", origin="guard", group=parent.meta.group)
    return Change(why, None, pair(question, parent.answer, system=head, meta=meta))


def drop_near_guards(ground: Ground) -> Iterator[Change]:
    """Of the rows nearest to what was wrongly declined, those that decline."""
    for row in ground.near:
        if normalise(row.answer) in ground.known.guards:
            yield Change("declines, and is near to a question that was wrongly declined", row)


def mend_format(ground: Ground) -> Iterator[Change]:
    """Drops, of answers with fields, those that lack a field that nine of ten have."""
    keys = [frozenset(map(fold, fields(row.answer))) for row in ground.rows]
    counts = Counter(key for some in keys for key in some)
    usual = {key for key, count in counts.items() if count >= 0.9 * sum(map(bool, keys))}
    for row, some in zip(ground.rows, keys, strict=True):
        if some and (missing := sorted(usual - some)):
            yield Change(f"without the fields {', '.join(missing)}, which the others have", row)


def drop_contradictions(ground: Ground) -> Iterator[Change]:
    """Of rows that ask the same and answer with other numbers, all but the first."""
    first: dict[str, Row] = {}
    for row in ground.rows:
        same = first.setdefault(plain(row.question), row)
        ours, theirs = (set(re.findall(r"\d+(?:[.,]\d+)*", one.answer)) for one in (row, same))
        if ours != theirs:
            yield Change(f"other numbers than {same.meta.source}:{same.meta.line}, which asks the same", row)


def cap_pattern(ground: Ground) -> Iterator[Change]:
    """Of one answer to many different questions, all but two rows; answers that decline are meant to be so."""
    seen: Counter[str] = Counter()
    shared = Counter(plain(row.answer) for row in ground.rows)
    for row in ground.rows:
        said = plain(row.answer)
        seen[said] += 1
        if shared[said] >= SHARED and seen[said] > 2 and normalise(row.answer) not in ground.known.guards:
            yield Change(f"the same answer as {shared[said] - 1} other rows", row)


MAKERS: Mapping[str, Sequence[Callable[[Ground], Iterator[Change]]]] = {
    "misspelling": (mend_spelling,),
    "too_long": (shorten,),
    "too_short": (drop_short,),
    "repetitive": (drop_loops, shorten),
    "did_not_stop": (drop_alike(did_not_stop), shorten),
    "prompt_echo": (cut_echo, drop_alike(prompt_echo)),
    "empty": (drop_alike(empty),),
    "off_topic": (add_guards,),
    "refusal": (drop_near_guards, drop_alike(refusal)),
    "wrong_format": (mend_format,),
    "wrong_value": (drop_contradictions,),
    "copied": (cap_pattern,),
}


def accepted(proposals: Sequence[Proposal], wanted: Collection[str]) -> list[Proposal]:
    """Those that are named: by id, by category, or "all"."""
    return [p for p in proposals if "all" in wanted or {p.id, p.category} & set(wanted)]


def _sentences(text: str) -> list[str]:
    """The sentences of prose; a text with code, a list or a table is one piece."""
    return [text] if _STRUCTURE.search(text) else [part for part in _SENTENCE.split(text.strip()) if part]


def _with_answer(row: Row, answer: str) -> Row:
    return replace(row, messages=(*row.messages[:-1], Message("assistant", answer)))


def _spread(items: Sequence[_Item], count: int) -> Iterator[_Item]:
    """So many of them, from everywhere in the list."""
    step = max(1, len(items) // max(1, count))
    return islice(items[::step], count)
