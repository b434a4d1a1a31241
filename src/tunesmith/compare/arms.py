"""Arms that need no tuning, to hold a tuned model against: the commonest answer, and the likeliest of given options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tunesmith.core.errors import DataError
from tunesmith.core.records import Row
from tunesmith.engine.base import Engine
from tunesmith.metrics.labels import SEPARATORS, fields


def majority(train_rows: Sequence[Row], test_rows: Sequence[Row]) -> list[str]:
    """For each test row the commonest training answer; where its reference has fields, the commonest value of each.

    Knowing which rows ask for fields is more than a real baseline knows: it flatters this arm, never the tuned model.
    """
    answers = [row.answer for row in train_rows if row.answer]
    if not answers:
        raise DataError("no training row has an answer, so none is the commonest")
    with_fields = [answer for answer in answers if fields(answer)]
    plain = [answer for answer in answers if not fields(answer)]
    form = _commonest_fields(with_fields) if with_fields else ""
    text = _commonest(plain) if plain else form
    return [form if form and fields(row.answer) else text for row in test_rows]


def by_likelihood(
    engine: Engine, encode: Callable[[str], list[int]], prompt: Sequence[int], options: Sequence[str]
) -> str:
    """The option that the model finds likeliest after a prompt, by mean log-probability a token."""
    return options[choose(engine, [prompt], [[encode(option) for option in options]])[0]]


def choose(engine: Engine, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """For each prompt the index of its likeliest option (token ids), all scored in one call; the first one on a tie.

    A fair reading of a model that cannot follow the format. The mean a token, because a sum prefers short options.
    """
    requests = [(prompt, option) for prompt, its in zip(prompts, options, strict=True) for option in its]
    scores = iter(engine.score(requests))
    means = [[next(scores).mean for _ in its] for its in options]
    return [max(range(len(its)), key=its.__getitem__) for its in means]


def _commonest(values: Iterable[str]) -> str:
    """Of equally common values the one seen first."""
    return Counter(values).most_common(1)[0][0]


def _commonest_fields(answers: Sequence[str]) -> str:
    """The commonest value of each field over the answers with the commonest set of fields, written as they are."""
    names = Counter(tuple(fields(answer)) for answer in answers).most_common(1)[0][0]
    alike = [answer for answer in answers if tuple(fields(answer)) == names]
    values = {name: _commonest(fields(answer)[name] for answer in alike) for name in names}
    first = alike[0].strip()
    between = "\n" if "\n" in first else next((s for s in SEPARATORS if s in first), "\n")
    return between.join(f"{name}: {value}" for name, value in values.items())
