"""What a test can assert of an answer: a row of ASSERTIONS each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.records import Row
from tunesmith.evaluate.catalogue import compiled
from tunesmith.evaluate.own import load
from tunesmith.evaluate.scoring import schema_file, schema_of
from tunesmith.evaluate.suite import Placed
from tunesmith.metrics.labels import label_of
from tunesmith.metrics.overlap import exact_match, fold, normalise, token_f1, words
from tunesmith.metrics.schema import read_json
from tunesmith.metrics.style import repetition

PASSED = ""


class Unknown(Exception):
    """An assertion that cannot be checked on a row: neither passed nor failed."""


@dataclass(frozen=True)
class Answered:
    """An answer as assertions see it. `finish`, `reference` and `latency_ms` are None where nobody told them.

    `first`: the answer to the first row of the same test.
    """

    row: Row
    text: str
    finish: str | None = None
    reference: str | None = None
    latency_ms: float | None = None
    first: str = ""


@dataclass(frozen=True)
class Known:
    """What assertions need beyond an answer: where files lie, and the guard answers of training (None: no set)."""

    folder: Path
    guards: frozenset[str] | None


Check = Callable[[Answered], str]  # PASSED, or why not; raises Unknown


def checks(test: Placed, known: Known) -> dict[str, Check]:
    """Assertion -> its check. Raises UsageError on a file or a function that cannot be loaded."""
    return {name: ASSERTIONS[name](value, test, known) for name, value in test.assertions.items()}


def _equals(wanted: Sequence[str], test: Placed, known: Known) -> Check:
    options = {normalise(text) for text in wanted}
    return lambda a: PASSED if normalise(a.text) in options else f"is not {_either(wanted)}"


def _contains(wanted: Sequence[str], test: Placed, known: Known) -> Check:
    return lambda a: _all([f"lacks '{text}'" for text in wanted if fold(text) not in fold(a.text)])


def _contains_any(wanted: Sequence[str], test: Placed, known: Known) -> Check:
    return lambda a: PASSED if any(fold(text) in fold(a.text) for text in wanted) else f"lacks {_either(wanted)}"


def _not_contains(unwanted: Sequence[str], test: Placed, known: Known) -> Check:
    return lambda a: _all([f"has '{text}'" for text in unwanted if fold(text) in fold(a.text)])


def _regex(patterns: Sequence[str], test: Placed, known: Known) -> Check:
    found = [compiled(pattern) for pattern in patterns]
    return lambda a: _all([f"no match of {p.pattern}" for p in found if not p.search(a.text)])


def _not_regex(patterns: Sequence[str], test: Placed, known: Known) -> Check:
    found = [compiled(pattern) for pattern in patterns]
    return lambda a: _all([f"{p.pattern} matches '{match[0]}'" for p in found if (match := p.search(a.text))])


def _valid_json(wanted: bool, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        try:
            read_json(a.text)
        except (ValueError, RecursionError) as error:
            return f"not JSON: {error}" if wanted else PASSED
        return PASSED if wanted else "is JSON"

    return check


def _json_schema(given: str | Mapping[str, Any], test: Placed, known: Known) -> Check:
    file = isinstance(given, str)
    schema = schema_file(known.folder / str(given), test.where) if file else schema_of(given, test.where)
    return lambda a: schema.problem(a.text) or PASSED


def _label(labels: Sequence[str], test: Placed, known: Known) -> Check:
    options = {normalise(label) for label in labels}
    return lambda a: PASSED if label_of(a.text, options) else f"is none of the labels {', '.join(labels)}"


def _exact(wanted: bool, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        same = exact_match(a.text, _reference(a)) == 1.0
        return PASSED if same == wanted else f"is {'' if same else 'not '}the reference"

    return check


def _f1(least: float, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        value = token_f1(a.text, _reference(a))
        return PASSED if value >= least else f"F1 {value:.3f}, less than {least:g}"

    return check


def _min_words(least: int, test: Placed, known: Known) -> Check:
    return lambda a: PASSED if (n := len(words(a.text))) >= least else f"{n} words, fewer than {least}"


def _max_words(most: int, test: Placed, known: Known) -> Check:
    return lambda a: PASSED if (n := len(words(a.text))) <= most else f"{n} words, more than {most}"


def _max_characters(most: int, test: Placed, known: Known) -> Check:
    return lambda a: PASSED if len(a.text) <= most else f"{len(a.text)} characters, more than {most}"


def _stops(wanted: bool, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        if a.finish is None:
            raise Unknown('how the answer ended is not told: no "finish" in its row')
        stopped = a.finish == "stop"
        return PASSED if stopped == wanted else "ended by itself" if stopped else "did not stop before the limit"

    return check


def _repetitive(wanted: bool, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        evidence = repetition(a.text)
        return PASSED if bool(evidence) == wanted else evidence or "does not repeat itself"

    return check


def _guard(wanted: bool, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        if not known.guards:
            raise Unknown("no guard answer is known: the training rows have none, or there are no training rows")
        declined = normalise(a.text) in known.guards
        return PASSED if declined == wanted else "declines" if declined else "does not decline"

    return check


def _latency(most: float, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        if a.latency_ms is None:
            raise Unknown('how long the answer took is not told: no "latency_ms" in its row')
        return PASSED if a.latency_ms <= most else f"{a.latency_ms:.0f} ms, more than {most:g}"

    return check


def _same(wanted: bool, test: Placed, known: Known) -> Check:
    def check(a: Answered) -> str:
        same = normalise(a.text) == normalise(a.first)
        return PASSED if same == wanted else f"{'the same as' if same else 'differs from'} the first: '{a.first[:60]}'"

    return check


def _function(name: str, test: Placed, known: Known) -> Check:
    function, least = load(name, known.folder, test.where), test.case.function_at_least

    def check(a: Answered) -> str:
        value = function(a.text, a.reference or "", a.row)
        if value is None:
            raise Unknown(f"{name} gave None")
        return PASSED if value >= least else f"{name} gave {value:g}, less than {least:g}"

    return check


ASSERTIONS: Mapping[str, Callable[[Any, Placed, Known], Check]] = {
    "equals": _equals,
    "contains": _contains,
    "contains_any": _contains_any,
    "not_contains": _not_contains,
    "regex": _regex,
    "not_regex": _not_regex,
    "valid_json": _valid_json,
    "json_schema": _json_schema,
    "label": _label,
    "exact": _exact,
    "f1_at_least": _f1,
    "min_words": _min_words,
    "max_words": _max_words,
    "max_characters": _max_characters,
    "stops": _stops,
    "repetitive": _repetitive,
    "guard": _guard,
    "latency_ms": _latency,
    "same": _same,
    "function": _function,
}


def _reference(a: Answered) -> str:
    if not a.reference:
        raise Unknown("the row has no reference")
    return a.reference


def _all(problems: Sequence[str]) -> str:
    return "; ".join(problems) if problems else PASSED


def _either(options: Sequence[str]) -> str:
    return " or ".join(f"'{option}'" for option in options)
