"""Three errors of style that a fine-tuned model makes, found without a reference model: a row of DETECTORS each.

Figures in comments: 3,276 human answers (Lamini docs, Alpaca, self-instruct seeds and user tasks, MT-bench, DPO demo)
and the real outputs of a base model (davinci) and its tuned version on 252 prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunesmith.metrics.overlap import words
from tunesmith.metrics.spelling import Lexicon, checkable, in_dictionary, slips
from tunesmith.metrics.stats import nearest_rank

LONGER = 1.5  # times the reference, beside what the training answers say
LONGER_ALONE = 3.0  # times the reference, where there are none
LOOPS = 3  # times a phrase in a row
PHRASE = range(2, 9)  # words in a phrase that loops
# Share of 4-grams that were there before. Above 0.3 lie 1 of 3,276 human answers and 249 of 252 of the base model.
DUPLICATES = 0.3
DUPLICATES_LEAST = 10  # 4-grams; in shorter texts a single repeat is already a large share
# Share of the training words that the English dictionary knows: 0.97-1.0 in seven English sets; 0.06-0.29 for the
# 3,000 commonest words of Spanish, French, German, Dutch, Italian and Portuguese.
ENGLISH = 0.5


@dataclass(frozen=True)
class Vocabulary:
    """What the training answers tell: their words, the lengths (words) that 99 % stay within, whether it is English.

    Of no answers at all nothing is known: the lengths are 0, and the spelling is taken for English.
    """

    lexicon: Lexicon
    shortest: int
    longest: int
    english: bool

    @classmethod
    def of(cls, answers: Iterable[str]) -> Vocabulary:
        answers = list(answers)
        lengths = [len(words(a)) for a in answers]
        longest, shortest = int(nearest_rank(lengths, 0.99)), int(-nearest_rank([-n for n in lengths], 0.99))
        plain = {word for a in answers for word in checkable(a)}
        known = sum(in_dictionary(word) for word in plain)
        return cls(Lexicon.of(answers), shortest, longest, english=known >= ENGLISH * len(plain))


@dataclass(frozen=True)
class Answer:
    """What a detector sees of one prediction."""

    prediction: str
    finish: str
    reference: str
    prompt: str
    vocabulary: Vocabulary


class Detector(NamedTuple):
    name: str
    function: Callable[[Answer], str | None]  # the evidence, or None
    explanation: str


def detect(prediction: str, finish: str, reference: str, prompt: str, vocabulary: Vocabulary) -> dict[str, str]:
    """The errors of one prediction: category -> evidence. `finish` is the engine's "stop" or "length"."""
    answer = Answer(prediction, finish, reference, prompt, vocabulary)
    found = {d.name: d.function(answer) for d in detectors(vocabulary)}
    return {name: evidence for name, evidence in found.items() if evidence}


def detectors(vocabulary: Vocabulary) -> list[Detector]:
    """The detectors that can be run: spelling is checked in English only."""
    return [d for d in DETECTORS if vocabulary.english or d.name != "misspelling"]


def misspelling(answer: Answer) -> str | None:
    """Words in no dictionary, training answer, prompt or reference, and real words that stand for another."""
    prompt, reference = Lexicon.of([answer.prompt]), Lexicon.of([answer.reference])
    found = slips(answer.prediction, prompt, reference, answer.vocabulary.lexicon)
    return ", ".join(dict.fromkeys(map(str, found))) or None


def too_long(answer: Answer) -> str | None:
    """Did not stop, or has more words than both 1.5 x the reference and 99 % of the training answers.

    Where there are no training answers, more than 3 x the reference.
    """
    if answer.finish == "length":
        return "did not stop before the limit of new tokens"
    length = len(words(answer.prediction))
    longest = answer.vocabulary.longest
    limit = max((LONGER if longest else LONGER_ALONE) * len(words(answer.reference)), longest)
    return f"{length} words, more than {limit:g}" if length > limit else None


def repetitive(answer: Answer) -> str | None:
    """A phrase three times in a row, or too many 4-grams twice; unless the reference does the same (a song, a table).

    Finds 11 of the 3,276 human answers (0.3 %) when each is its own prediction with no reference.
    """
    return None if repetition(answer.reference) else repetition(answer.prediction)


def repetition(text: str) -> str | None:
    """Evidence that a text loops, or None."""
    found = words(text)
    looped = next((phrase for n in PHRASE if (phrase := _loop(found, n))), None)
    if looped:
        return f"'{looped}' {LOOPS} times or more in a row"
    grams = list(zip(*(found[i:] for i in range(4)), strict=False))
    share = 1 - len(set(grams)) / len(grams) if grams else 0.0
    often = share > DUPLICATES and len(grams) >= DUPLICATES_LEAST
    return f"{share:.0%} of its four-word runs repeat" if often else None


DETECTORS: Sequence[Detector] = (
    Detector(
        "misspelling", misspelling, "a word that is in no English dictionary or training answer, or stands for another"
    ),
    Detector("too_long", too_long, "did not stop, or is far longer than the reference and the training answers"),
    Detector("repetitive", repetitive, "the same phrase again and again"),
)


def _loop(found: list[str], n: int) -> str | None:
    """A phrase of n words that comes three times, each right after the one before; three words up, one may be between.

    ("time and money and time and money and time and money".) Numbers and letters repeat in tables and formulas.
    """
    gap = 1 if n > 2 else 0
    runs: dict[tuple[str, ...], tuple[int, int]] = {}  # phrase -> (start of the last one, how many in a row)
    for start in range(len(found) - n + 1):
        phrase = tuple(found[start : start + n])
        last, count = runs.get(phrase, (-len(found), 0))
        if start - last < n:
            continue  # overlaps itself
        runs[phrase] = start, count = start, count + 1 if start - last <= n + gap else 1
        if count == LOOPS and any(len(w) > 1 and not w.isdigit() for w in phrase):
            return " ".join(phrase)
    return None
