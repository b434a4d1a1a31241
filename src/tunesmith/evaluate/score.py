"""One held-out row with all that was answered to it, and what each answer scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tunesmith.core.records import Row
from tunesmith.engine.base import Generation
from tunesmith.metrics.labels import false_refusal, field_accuracy, fields, guard_recall
from tunesmith.metrics.overlap import exact_match, length_ratio, rouge, token_f1
from tunesmith.metrics.style import Vocabulary, detect

MetricName = Literal["exact_match", "f1", "rouge1", "rouge2", "rougeL", "length_ratio", "fields"]
FIELDS_SHARE = 0.1  # of the references, from which on fields are scored unasked; free text has them by accident (1 %)
_PLAIN: Mapping[str, Callable[[str, str], float | None]] = {
    "exact_match": exact_match,
    "f1": token_f1,
    "length_ratio": length_ratio,
    "fields": field_accuracy,
}


class Meaning(NamedTuple):
    """Whether higher is better (None: neither is), and what a metric says, for the report."""

    higher_is_better: bool | None
    text: str


MEANINGS: Mapping[str, Meaning] = {
    "exact_match": Meaning(True, "the same text, but for case, spaces and the full stop at the end"),
    "f1": Meaning(True, "words shared with the reference: F1 of precision and recall"),
    "rouge1": Meaning(True, "ROUGE-1 F1: single words shared"),
    "rouge2": Meaning(True, "ROUGE-2 F1: pairs of neighbouring words shared"),
    "rougeL": Meaning(True, "ROUGE-L F1: longest common sequence of words"),
    "length_ratio": Meaning(None, "words for each word of the reference; 1 is the reference's own length"),
    "fields": Meaning(True, "share of the reference's 'key: value' fields given with the same value"),
    "guard_recall": Meaning(True, "questions to be declined that were declined"),
    "false_refusal": Meaning(False, "questions with an answer that were declined all the same"),
}


def meaning(name: str) -> Meaning:
    """Precision and recall of a ROUGE (rouge1_recall) are read like its F1."""
    head, _, part = name.partition("_")
    return MEANINGS[name] if headline(name) else Meaning(True, f"the {part} of {head}")


def headline(name: str) -> bool:
    """Whether a metric stands for itself, and is not the precision or recall of another."""
    return name in MEANINGS


@dataclass(frozen=True)
class Item:
    """`scores` is metric -> arm -> value, where the arms are "base", "tuned" and the reference arms' names.

    A value is None where a metric has nothing to say of a row (fields of a sentence), then for all arms alike.
    """

    row: Row
    reference: str
    base: Generation
    tuned: Generation
    arms: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float | None]]
    errors: Mapping[str, Mapping[str, str]]

    @property
    def group(self) -> str:
        """What is resampled together: the row's group, or the row itself."""
        return self.row.meta.group or self.row.id

    def prediction_json(self) -> dict[str, Any]:
        meta = self.row.meta.to_json()
        place = {key: meta[key] for key in ("source", "line", "group", "origin")}
        texts = {"prompt": self.row.question, "reference": self.reference}
        answers = {"base": self.base.text, "tuned": self.tuned.text}
        finish = {"base_finish": self.base.finish, "tuned_finish": self.tuned.finish}
        return {"id": self.row.id, **place, **texts, **answers, **finish, "arms": dict(self.arms)}

    def scores_json(self) -> dict[str, Any]:
        metrics = {}
        for name, values in self.scores.items():
            arms = {arm: values[arm] for arm in self.arms}
            metrics[name] = {"base": values["base"], "tuned": values["tuned"], "arms": arms}
        return {"id": self.row.id, "metrics": metrics, "errors": {arm: dict(e) for arm, e in self.errors.items()}}


def reference_of(row: Row) -> str:
    """The answer a row holds: its last assistant message, or the chosen answer of a preference."""
    return row.answer or row.chosen or ""


def metric_names(asked: Iterable[str], references: Collection[str]) -> list[str]:
    """The metrics asked for, and fields where the references have them."""
    with_fields = sum(bool(fields(reference)) for reference in references)
    extra = ["fields"] if with_fields >= FIELDS_SHARE * len(references) else []
    return list(dict.fromkeys([*asked, *extra]))


@dataclass(frozen=True)
class Scorer:
    """What every item is scored with."""

    names: list[str]
    guards: frozenset[str]
    vocabulary: Vocabulary

    def item(self, row: Row, base: Generation, tuned: Generation, arms: Mapping[str, str]) -> Item:
        reference = reference_of(row)
        texts = {"base": base.text, "tuned": tuned.text, **arms}
        by_arm = {arm: dict(self._values(text, reference)) for arm, text in texts.items()}
        scores = {name: {arm: by_arm[arm][name] for arm in texts} for name in by_arm["base"]}
        prompt = "\n".join(m.content for m in row.prompt)
        errors = {
            arm: detect(got.text, got.finish, reference, prompt, self.vocabulary)
            for arm, got in (("base", base), ("tuned", tuned))
        }
        return Item(row, reference, base, tuned, arms, scores, errors)

    def _values(self, prediction: str, reference: str) -> Iterator[tuple[str, float | None]]:
        overlaps = rouge(prediction, reference) if any(name.startswith("rouge") for name in self.names) else {}
        for name in self.names:
            if name in overlaps:
                yield name, overlaps[name].f1
                yield f"{name}_precision", overlaps[name].precision
                yield f"{name}_recall", overlaps[name].recall
            else:
                yield name, _PLAIN[name](prediction, reference)
        if self.guards:
            yield "guard_recall", guard_recall(prediction, reference, self.guards)
            yield "false_refusal", false_refusal(prediction, reference, self.guards)
