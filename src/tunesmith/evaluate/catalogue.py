"""What can be scored, by name: a row of METRICS each, or a name with an argument (regex:, my.py:function)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from tunesmith.core.errors import did_you_mean
from tunesmith.metrics.labels import field_accuracy, fields
from tunesmith.metrics.ngrams import sentence_bleu, sentence_chrf
from tunesmith.metrics.overlap import ROUGE, exact_match, length_ratio, token_f1
from tunesmith.metrics.schema import is_json

FIELDS_SHARE = 0.1  # of the references, from which on fields are scored unasked; free text has them by accident (1 %)
OWN = re.compile(r"(?P<file>.+\.py):(?P<function>\w+)")  # a function of the user


class Metric(NamedTuple):
    """Whether higher is better (None: neither is), what it says, for the report, and how one answer is scored.

    Without a function it is not scored from two texts alone: ROUGE, and what the stage measures or knows more for.
    """

    higher_is_better: bool | None
    text: str
    function: Callable[[str, str], float | None] | None = None


METRICS: Mapping[str, Metric] = {
    "exact_match": Metric(True, "the same text, but for case, spaces and the full stop at the end", exact_match),
    "f1": Metric(True, "words shared with the reference: F1 of precision and recall", token_f1),
    "rouge1": Metric(True, "ROUGE-1 F1: single words shared"),
    "rouge2": Metric(True, "ROUGE-2 F1: pairs of neighbouring words shared"),
    "rougeL": Metric(True, "ROUGE-L F1: longest common sequence of words"),
    "rougeLsum": Metric(True, "ROUGE-Lsum F1: longest common sequences of words, line by line"),
    "bleu": Metric(True, "BLEU of each answer: runs of 1 to 4 words shared; short answers lose", sentence_bleu),
    "chrf": Metric(True, "chrF of each answer: runs of 1 to 6 characters shared", sentence_chrf),
    "length_ratio": Metric(None, "words for each word of the reference; 1 is the reference's own length", length_ratio),
    "similarity": Metric(True, "nearness in meaning: cosine of two vectors of an embedding model"),
    "similarity_lexical": Metric(True, "nearness in spelling, not in meaning: TF-IDF cosine of runs of characters"),
    "fields": Metric(True, "share of the reference's fields given with the same value", field_accuracy),
    "valid_json": Metric(
        True, "answers that are valid JSON and nothing else", lambda prediction, _: is_json(prediction)
    ),
    "label": Metric(True, "answers that are the reference's label: accuracy"),
    "label_valid": Metric(True, "answers that are one of the labels and nothing else"),
    "perplexity": Metric(False, "how unsure the model is of each token of the reference, as a number of choices"),
    "bpb": Metric(False, "bits that the model needs for each byte of the reference"),
    "output_tokens": Metric(None, "tokens written"),
    "latency_ms": Metric(False, "milliseconds from a question alone to its whole answer"),
    "guard_recall": Metric(True, "questions to be declined that were declined"),
    "false_refusal": Metric(False, "questions with an answer that were declined all the same"),
}
UNASKED = {"guard_recall", "false_refusal"}  # measured where there are guards, and only there
ARGUMENTS: Mapping[str, Metric] = {
    "regex": Metric(True, "answers in which the pattern is found"),
    "json_schema": Metric(True, "answers that are JSON and fit the schema"),
}
_OF_OWN = Metric(True, "your own function")
_MACRO_F1 = Metric(True, "the mean of the labels' F1: a rare label counts as much as a common one")


def meaning(name: str) -> Metric:
    """Precision and recall of a ROUGE (rouge1_recall) are read like its F1."""
    if name in METRICS:
        return METRICS[name]
    if name == "macro_f1" or OWN.fullmatch(name):
        return _MACRO_F1 if name == "macro_f1" else _OF_OWN
    if ":" in name:
        return ARGUMENTS[name.partition(":")[0]]
    head, _, part = name.partition("_")
    return Metric(True, f"the {part} of {head}")


def headline(name: str) -> bool:
    """Whether a metric stands for itself, and is not the precision or recall of another."""
    return name in METRICS or ":" in name


def check(name: str) -> str:
    """The name. Raises ValueError on one that is no metric, with the nearest there is."""
    head, colon, argument = name.partition(":")
    if OWN.fullmatch(name):
        return name
    if colon and head in ARGUMENTS and argument:
        if head == "regex":
            compiled(argument)
        return name
    known = [*sorted(METRICS.keys() - UNASKED), *(f"{key}:..." for key in ARGUMENTS), "FILE.py:FUNCTION"]
    if name not in METRICS or name in UNASKED:
        raise ValueError(f"there is no metric '{name}': {did_you_mean(name, known)}")
    return name


def compiled(pattern: str) -> re.Pattern[str]:
    """Raises ValueError on what is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern {pattern} is no regular expression: {error}") from error


def metric_names(asked: Iterable[str], references: Collection[str], labels: Collection[str] = ()) -> list[str]:
    """The metrics asked for; fields where the references have them, and label where there are labels."""
    with_fields = sum(bool(fields(reference)) for reference in references)
    extra = ["fields"] if with_fields >= FIELDS_SHARE * len(references) else []
    extra += ["label"] if labels else []
    return list(dict.fromkeys([*asked, *extra]))


def rouges(names: Iterable[str]) -> list[str]:
    return [name for name in names if name in ROUGE]
