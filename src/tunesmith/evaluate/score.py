"""One held-out row with all that was answered to it, and what each answer scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.records import Row
from tunesmith.engine.base import Generation
from tunesmith.evaluate.catalogue import METRICS, rouges
from tunesmith.metrics.labels import false_refusal, guard_recall
from tunesmith.metrics.overlap import rouge
from tunesmith.metrics.style import Vocabulary, detect

Measured = Mapping[str, Mapping[str, float | None]]  # metric -> arm -> value, of what needs more than two texts


@dataclass(frozen=True)
class Item:
    """`scores` is metric -> arm -> value, where the arms are "base", "tuned" and the reference arms' names.

    A value is None where a metric has nothing to say of a row (fields of a sentence), then for base and tuned alike,
    and where an arm is no model (perplexity of the majority answer).
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

    @property
    def texts(self) -> dict[str, str]:
        """Every arm's answer."""
        return {"base": self.base.text, "tuned": self.tuned.text, **self.arms}

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


@dataclass(frozen=True)
class Scorer:
    """What every item is scored with. `functions` score (prediction, reference, row) for names not in the table.

    `labels`: the distinct answers where the task is classification.
    """

    names: list[str]
    guards: frozenset[str]
    vocabulary: Vocabulary
    functions: Mapping[str, Callable[[str, str, Row], float | None]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def item(
        self, row: Row, base: Generation, tuned: Generation, arms: Mapping[str, str], measured: Measured | None = None
    ) -> Item:
        reference = row.reference
        texts = {"base": base.text, "tuned": tuned.text, **arms}
        of_arm = {arm: {name: values.get(arm) for name, values in (measured or {}).items()} for arm in texts}
        by_arm = {arm: dict(self.values(text, row, of_arm[arm])) for arm, text in texts.items()}
        scores = {name: {arm: by_arm[arm][name] for arm in texts} for name in by_arm["base"]}
        prompt = "\n".join(m.content for m in row.prompt)
        errors = {
            arm: detect(got.text, got.finish, reference, prompt, self.vocabulary)
            for arm, got in (("base", base), ("tuned", tuned))
        }
        return Item(row, reference, base, tuned, arms, scores, errors)

    def values(
        self, prediction: str, row: Row, measured: Mapping[str, float | None] | None = None
    ) -> Iterator[tuple[str, float | None]]:
        """What one answer scores, by metric. What needs more than two texts is left out where it is not `measured`."""
        asked, reference, measured = rouges(self.names), row.reference, measured or {}
        overlaps = rouge(prediction, reference, asked) if asked else {}
        for name in self.names:
            if name in overlaps:
                yield name, overlaps[name].f1
                yield f"{name}_precision", overlaps[name].precision
                yield f"{name}_recall", overlaps[name].recall
            elif name in measured:
                yield name, measured[name]
            elif name in self.functions:
                yield name, self.functions[name](prediction, reference, row)
            elif function := METRICS[name].function:
                yield name, function(prediction, reference)
        if self.guards:
            yield "guard_recall", guard_recall(prediction, reference, self.guards)
            yield "false_refusal", false_refusal(prediction, reference, self.guards)
