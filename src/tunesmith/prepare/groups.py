"""Which rows must not be parted: those that ask nearly the same.

The unit is a question: all that the user says in a row, normalised. Answers, system messages and the place of a row
in its file move nothing, so mending an answer never carries a row from test to train.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tunesmith.core.records import Reject, Row
from tunesmith.prepare.clean import answer_key, place, reject
from tunesmith.text.similar import Sets, UnionFind, near_pairs, normalise, shingle_sets, word_sets, worded

FRAME_SHARE, FRAME_LENGTH, FRAME_ROWS = 0.95, 20, 50  # of questions; characters; questions at least


def said(row: Row) -> str:
    """All that the user says; of a raw text, the text."""
    return "\n".join([m.content for m in row.messages if m.role == "user"]) or row.text


def asked(row: Row) -> str:
    """What is said, normalised."""
    return normalise(said(row))


@dataclass(frozen=True)
class Questions:
    """The distinct questions of a set and of the set before it. `texts` is what is compared: no shared frame."""

    index: dict[str, int]  # normalised
    number: dict[str, int]  # as they were said: normalising is slow, and a row is asked for many times
    texts: list[str]
    old: dict[int, str] = field(default_factory=dict)  # question -> the split that it had
    frame: str = ""

    def of(self, row: Row) -> int:
        return self.number[said(row)]

    @cached_property
    def parts(self) -> tuple[Sets, Sets]:
        """The 4-grams and the words of every text: in what leakage is measured."""
        return shingle_sets(self.texts), word_sets(self.texts)


def questions(rows: Iterable[Row], previous: Mapping[str, Sequence[Row]]) -> Questions:
    """Number the questions, those of the previous set first."""
    index: dict[str, int] = {}
    number: dict[str, int] = {}

    def numbered(row: Row) -> int:
        text = said(row)
        if text not in number:
            number[text] = index.setdefault(normalise(text), len(index))
        return number[text]

    old = {numbered(row): name for name, members in previous.items() for row in members}
    for row in rows:
        numbered(row)
    texts, frame = _without_frame(list(index))
    return Questions(index, number, texts, old, frame)


def _without_frame(texts: list[str]) -> tuple[list[str], str]:
    """The texts without the beginning and the end that nearly all of them share, such as one long instruction.

    With it, all questions would look alike, though they ask different things.
    """
    head = _shared_start(texts)
    tail = _shared_start([text[::-1] for text in texts])[::-1]
    out = []
    for text in texts:
        rest = text.removeprefix(head).removesuffix(tail)
        out.append(rest.strip() or text)
    return out, " ... ".join(part.strip() for part in (head, tail) if part)


def _shared_start(texts: list[str]) -> str:
    """The longest start, in whole words, that 95 % of the texts have: more than half, so the median has it."""
    ordered = sorted(texts)
    middle = ordered[len(ordered) // 2] if len(ordered) >= FRAME_ROWS else ""

    def shared(length: int) -> bool:
        start = middle[:length]
        return sum(text.startswith(start) for text in ordered) >= FRAME_SHARE * len(ordered)

    length = bisect_left(range(1, len(middle) + 1), True, key=lambda n: not shared(n))
    start = middle[: middle.rfind(" ", 0, length) + 1]
    return start if len(start) >= FRAME_LENGTH else ""


def alike(asking: Questions, threshold: float) -> list[tuple[int, int, float]]:
    """Pairs of questions by the Jaccard of their character 4-grams."""
    return near_pairs(asking.texts, threshold)


def same_words(asking: Questions, threshold: float) -> list[tuple[int, int]]:
    """Pairs of questions by the Jaccard of their words: what is alike in another order, too."""
    return [(i, j) for i, j, _ in near_pairs(asking.texts, threshold, worded)]


def drop_near(
    rows: Sequence[Row], asking: Questions, near: Sequence[tuple[int, int, float]], threshold: float
) -> tuple[list[Row], list[Reject]]:
    """Drop the later of two rows with the same answer and nearly the same question."""
    neighbours: dict[int, list[tuple[int, float]]] = {}
    for i, j, score in near:
        if score >= threshold:
            neighbours.setdefault(i, []).append((j, score))
            neighbours.setdefault(j, []).append((i, score))
    kept: dict[tuple[int, tuple[str, ...]], Row] = {}
    out, rejects = [], []
    for row in rows:
        question = asking.of(row)
        if question not in neighbours:
            out.append(row)
            continue
        answer = answer_key(row)
        twin = next((t for t in neighbours[question] if (t[0], answer) in kept), None)
        if twin:
            same = place(kept[twin[0], answer])
            rejects.append(reject(row, "near_duplicate", f"the answer of {same}, and its question at {twin[1]:.2f}"))
        else:
            kept.setdefault((question, answer), row)
            out.append(row)
    return out, rejects


@dataclass(frozen=True)
class Groups:
    """`key` names the group of each question; `split` is the one that a group's older members are in."""

    key: dict[int, str]
    split: dict[str, str]


def group(
    rows: Sequence[Row], previous: Mapping[str, Sequence[Row]], asking: Questions, links: Iterable[tuple[int, int]]
) -> tuple[list[Row], list[Reject], Groups]:
    """Join questions by links and by meta.group. A new one that would join two old splits is rejected.

    So is a generated row whose question lies in another old split than its parent.
    """
    edges: dict[int, set[int]] = {}
    for i, j in (*links, *_same_group([row for members in previous.values() for row in members], asking)):
        edges.setdefault(i, set()).add(j)
        edges.setdefault(j, set()).add(i)
    for i, j in _same_group(rows, asking):
        edges.setdefault(i, set()).add(j)
        edges.setdefault(j, set()).add(i)
    sets = UnionFind(len(asking.texts))
    split = dict(asking.old)  # by the smallest member of a set
    barred = set()
    for question in range(len(asking.texts)):  # the old ones come first
        near = {sets.find(other) for other in edges.get(question, ()) if other < question and other not in barred}
        sides = {split[member] for member in (question, *near) if member in split}
        if len(sides) > 1:
            if question not in asking.old:
                barred.add(question)
                continue
            near = {member for member in near if split.get(member) == split[question]}
        for member in near:
            sets.union(question, member)
        if sides:
            split[sets.find(question)] = split.get(question) or sides.pop()
    reasons = ["alike to rows in two splits" if asking.of(row) in barred else "" for row in rows]
    reasons = [a or b for a, b in zip(reasons, _astray(rows, asking), strict=True)]
    kept = [row for row, reason in zip(rows, reasons, strict=True) if not reason]
    rejects = [reject(row, "bridges_splits", why) for row, why in zip(rows, reasons, strict=True) if why]
    return kept, rejects, _named(kept, asking, sets, split)


def _astray(rows: Sequence[Row], asking: Questions) -> list[str]:
    """What is wrong with a generated row that asks what is asked in another split than its parent's; else ''."""
    home: dict[str, str] = {}
    for row in rows:
        side = asking.old.get(asking.of(row))
        if side and row.meta.group and row.meta.origin != "generated":
            home.setdefault(row.meta.group, side)
    out = []
    for row in rows:
        side = asking.old.get(asking.of(row)) if row.meta.origin == "generated" else None
        parent = home.get(row.meta.group, side) if side else None
        out.append("" if side == parent else f"it asks what is asked in {side}, and its parent is in {parent}")
    return out


def _same_group(rows: Iterable[Row], asking: Questions) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [(first.setdefault(row.meta.group, asking.of(row)), asking.of(row)) for row in rows if row.meta.group]


def _named(rows: Sequence[Row], asking: Questions, sets: UnionFind, split: dict[int, str]) -> Groups:
    """Call each group by the smallest hash of its questions."""
    names: dict[int, str] = {}
    present = {asking.of(row) for row in rows}
    for text, question in asking.index.items():
        if question in present:
            member, name = sets.find(question), _hash(text)
            names[member] = min(name, names.get(member, name))
    key = {question: names[sets.find(question)] for question in present}
    return Groups(key, {names[member]: side for member, side in split.items() if member in names})


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
