"""What can be wrong with an answer: a row of CATEGORIES each, found without a model.

Detectors are pure functions of one answer and of what the training rows tell. Each says its evidence, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunesmith.core.records import Row
from tunesmith.metrics.labels import fields, given_fields, guard_answers, label_of, label_set
from tunesmith.metrics.overlap import fold, normalise, words
from tunesmith.metrics.schema import is_json
from tunesmith.metrics.style import LONGER, LONGER_ALONE, Answer, Vocabulary, misspelling, repetitive, too_long
from tunesmith.text.refusals import refusal as refusal_phrase
from tunesmith.text.residue import MARK
from tunesmith.text.similar import jaccard
from tunesmith.text.similar import normalise as plain

COPIED = 8  # words of an answer from which being a training answer's twin is no accident
ECHO = 6  # words of a prompt's first sentence from which its return is an echo
SAME = 0.7  # Jaccard of 4-grams from which an answer says what a guard says
CONTENT, LEAST_CONTENT = 5, 4  # letters of a word that carries content; such words an answer needs to be judged by them
_ROLES = "input output question answer instruction response user assistant human system context q a"
ROLES = frozenset(_ROLES.split())
_LABEL = re.compile(r"^[ \t]*([A-Za-z]\w{0,15}):", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n+")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?!\w)")
_ITEM = re.compile(r"^[ \t]*\d+[.)]\s", re.MULTILINE)  # of a numbered list
_NAME = re.compile(r"(?<![.!?:\n] )(?<=[a-z0-9,;] )[A-Z][A-Za-z]{2,}")  # a capital inside a sentence


@dataclass(frozen=True)
class Known:
    """What the training rows tell. `answers`: those of COPIED words or more -> file:line of the first row with each."""

    vocabulary: Vocabulary
    guards: frozenset[str]
    labels: tuple[str, ...]
    answers: Mapping[str, str]
    trained: bool

    @classmethod
    def of(cls, training: Sequence[Row], references: Sequence[str] = ()) -> Known:
        """`references`: of the rows that are diagnosed; where nothing was trained on, their words are known."""
        said = [row.reference for row in training]
        guards = guard_answers(said) | {normalise(row.reference) for row in training if row.meta.origin == "guard"}
        labels = label_set([text for text in (*said, *references) if text and normalise(text) not in guards])
        answers: dict[str, str] = {}
        for row in training:
            if len(words(row.reference)) >= COPIED:
                answers.setdefault(plain(row.reference), f"{row.meta.source}:{row.meta.line}")
        vocabulary = Vocabulary.of(said)
        if not training:
            lexicon = Vocabulary.of(references)
            vocabulary = Vocabulary(lexicon.lexicon, 0, 0, lexicon.english)
        return cls(vocabulary, guards, labels, answers, bool(training))


class Category(NamedTuple):
    """`needs`: what a row, or the whole, must have to be judged: a reference, training rows, English answers."""

    name: str
    function: Callable[[Answer, Known], str | None]
    needs: tuple[str, ...]
    explanation: str


def judged(category: Category, answer: Answer, known: Known) -> bool:
    """Can this category be told of this answer?"""
    have = {"reference": bool(answer.reference.strip()), "training": known.trained, "english": known.vocabulary.english}
    return all(have[need] for need in category.needs)


def find(answer: Answer, known: Known) -> dict[str, str]:
    """The errors of one answer: category -> evidence. An empty answer has no other error than that and what it misses.

    A category whose needs are not met is not among them: `judged` tells it from one that found nothing.
    """
    able = [category for category in CATEGORIES if judged(category, answer, known)]
    if empty(answer, known):
        able = [category for category in able if category.function in (empty, did_not_stop)]
    found = {category.name: category.function(answer, known) for category in able}
    return {name: evidence for name, evidence in found.items() if evidence}


def too_short(answer: Answer, known: Known) -> str | None:
    """The mirror of too long: far fewer words than the reference, and than 99 % of the training answers have."""
    length, wanted = len(words(answer.prediction)), len(words(answer.reference))
    limit = min(wanted / LONGER, known.vocabulary.shortest) if known.trained else wanted / LONGER_ALONE
    return f"{length} words, fewer than {limit:g}" if length < limit else None


def did_not_stop(answer: Answer, known: Known) -> str | None:
    """Cut at the limit, or it goes on with the next turn: a template's mark, or a label of the prompt ("Input:")."""
    if answer.finish == "length":
        return "cut at the limit of new tokens"
    mark = MARK.search(answer.prediction)
    if mark and mark[0] not in answer.reference and mark[0] not in answer.prompt:
        return f"goes on with '{mark[0].strip()}'"
    labels = {fold(label) for label in _LABEL.findall(answer.prompt)} & ROLES
    labels -= {fold(label) for label in _LABEL.findall(answer.reference)}
    label = next((m[1] for m in _LABEL.finditer(answer.prediction) if fold(m[1]) in labels), "")
    return f"goes on with '{label}:'" if label else None


def prompt_echo(answer: Answer, known: Known) -> str | None:
    """Says the prompt again: all of it, or its first sentence, where the reference does not."""
    said, reference = plain(answer.prediction), plain(answer.reference)
    parts = [part for part in _SENTENCE.split(answer.prompt.strip()) if part.strip()]
    asked = [plain(text) for text in (*parts[:1], answer.prompt)]
    echo = next((text for text in asked if len(text.split()) >= ECHO and text in said and text not in reference), "")
    return f"says again: '{echo[:80]}'" if echo else None


def empty(answer: Answer, known: Known) -> str | None:
    """Not a letter, digit or symbol: punctuation and spaces at most."""
    bare = plain(answer.prediction)
    return None if any(char.isalnum() or ord(char) > 0x2000 for char in bare) else f"'{answer.prediction.strip()[:20]}'"


def off_topic(answer: Answer, known: Known) -> str | None:
    """A question that should be declined and was not; or no word of content in common with question and reference."""
    if normalise(answer.reference) in known.guards:
        declined = _declines(answer.prediction, known)
        return None if declined else f"should be declined: '{answer.reference.strip()[:60]}'"
    if _declines(answer.prediction, known):
        return None  # a refusal
    said = _content(answer.prediction)
    near = _content(answer.reference) | _content(answer.prompt)
    return "no word in common with the question" if len(said) >= LEAST_CONTENT and near and not said & near else None


def refusal(answer: Answer, known: Known) -> str | None:
    """Declines what the reference answers: by a guard, or by a set phrase ("As an AI language model")."""
    if normalise(answer.reference) in known.guards or refusal_phrase(answer.reference):
        return None
    if answer.reference and _declines(answer.prediction, known):
        return "declines, and should not"
    phrase = refusal_phrase(answer.prediction)
    return f"'{phrase.strip()}'" if phrase else None


def wrong_format(answer: Answer, known: Known) -> str | None:
    """The reference is JSON, has fields, is a label or a number, and the answer is not of that form."""
    said, wanted = answer.prediction.strip(), answer.reference.strip()
    if wanted[:1] in ("{", "[") and is_json(wanted):
        return None if is_json(said) else "not JSON"
    if asked := fields(wanted):
        missing = [key for key in asked if fold(key) not in {fold(given) for given in given_fields(said)}]
        return f"without the fields {', '.join(missing)}" if missing else None
    if label_of(wanted, known.labels):
        return None if label_of(said, known.labels) else f"none of the labels {', '.join(known.labels[:6])}"
    number = _NUMBER.fullmatch(wanted) and not _NUMBER.search(said)
    return "not a number" if number else None


def wrong_value(answer: Answer, known: Known) -> str | None:
    """A field, a label, a number or a name that is another than the reference's, and not the prompt's."""
    said, wanted = answer.prediction, answer.reference
    if asked := fields(wanted):
        given = {fold(key): value for key, value in given_fields(said).items()}
        found = [(key, given.get(fold(key)), value) for key, value in asked.items()]
        wrong = [f"{k}: {is_} for {v}" for k, is_, v in found if is_ is not None and normalise(is_) != normalise(v)]
        return ", ".join(wrong) or None
    label, right = label_of(said, known.labels), label_of(wanted, known.labels)
    if right:
        return f"{label} for {right}" if label and label != right else None
    for parts in (_numbers, _names):
        here, there, asked_for = parts(said), parts(wanted), parts(answer.prompt)
        near = set(words(wanted)) | set(words(answer.prompt))
        other = sorted(one for one in here - there - asked_for if fold(one) not in near)
        absent = sorted(one for one in there - asked_for if fold(one) not in words(said))
        if other and absent and not here & there - asked_for:
            return f"{', '.join(other[:3])} for {', '.join(absent[:3])}"
    return None


def copied(answer: Answer, known: Known) -> str | None:
    """Word for word a training answer, and not the one that the reference gives."""
    said = plain(answer.prediction)
    place = known.answers.get(said)
    if place is None or normalise(answer.prediction) in known.guards or said == plain(answer.reference):
        return None
    return f"the answer of {place}"


def _style(function: Callable[[Answer], str | None]) -> Callable[[Answer, Known], str | None]:
    return lambda answer, known: function(answer)


CATEGORIES: Sequence[Category] = (
    Category("misspelling", _style(misspelling), ("english",), "a word that no dictionary has, or a real one wrongly"),
    Category("too_long", _style(too_long), ("reference",), "far longer than the reference and the training answers"),
    Category("too_short", too_short, ("reference",), "far shorter than the reference and the training answers"),
    Category("repetitive", _style(repetitive), (), "the same phrase again and again"),
    Category("did_not_stop", did_not_stop, (), "cut at the limit, or goes on with the next turn (role leak)"),
    Category("prompt_echo", prompt_echo, (), "says the prompt again"),
    Category("empty", empty, (), "nothing"),
    Category(
        "off_topic", off_topic, ("reference",), "a question to be declined that was not (missed guard), or no link"
    ),
    Category("refusal", refusal, (), "declines what should be answered"),
    Category(
        "wrong_format", wrong_format, ("reference",), "not the form of the reference: JSON, fields, label, number"
    ),
    Category("wrong_value", wrong_value, ("reference",), "another number, name, label or field than the reference's"),
    Category("copied", copied, ("reference", "training"), "another question's training answer, word for word"),
)


def _declines(text: str, known: Known) -> bool:
    said = normalise(text)
    return said in known.guards or any(jaccard(said, guard) >= SAME for guard in known.guards)


def _content(text: str) -> set[str]:
    """The first letters of its longer words: run, runs and running are one."""
    return {word[:CONTENT] for word in words(text) if len(word) >= CONTENT}


def _numbers(text: str) -> set[str]:
    return {number.replace(",", "") for number in _NUMBER.findall(_ITEM.sub("", text))}


def _names(text: str) -> set[str]:
    return set(_NAME.findall(text))
