"""The words of a data report: a check and what it found; an axis, the parts of its score, and the formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tunesmith.core.records import Row
from tunesmith.prepare.clean import place
from tunesmith.prepare.corpus import Corpus

Severity = Literal["error", "warning", "note"]
Hit = tuple[int, str]  # the row's number in the corpus, and the evidence


class Check(NamedTuple):
    """A row of the table of checks. `function` gives every row that fails, once, with the evidence."""

    name: str
    severity: Severity
    function: Callable[[Corpus], Iterable[Hit]]
    explanation: str
    fix: str = ""


@dataclass(frozen=True)
class Finding:
    """Rows worth a look, left as they are. `fix` is what to type or edit."""

    name: str
    severity: Severity
    explanation: str
    fix: str
    hits: tuple[tuple[Row, str], ...]
    count: int  # of rows, or of what the explanation counts

    def records(self) -> Iterable[dict[str, object]]:
        """Lines of findings.jsonl."""
        for row, detail in self.hits:
            where = {"row": row.id, "source": row.meta.source, "line": row.meta.line}
            yield {"finding": self.name, "severity": self.severity, **where, "detail": detail}

    def lines(self, most: int) -> list[str]:
        """`source:line (row id) evidence`, at most so many."""
        return [f"{place(row)} ({row.id}) {short(detail)}" for row, detail in self.hits[:most]]


@dataclass(frozen=True)
class Part:
    """One weighted part of a score: `passed` in 0..1. `told` says how that follows from what was measured."""

    name: str
    weight: float
    passed: float
    told: str


@dataclass(frozen=True)
class Axis:
    """A score of 0..100 with its formula, what was measured, and what to do. Without parts it was not measured."""

    name: str
    parts: tuple[Part, ...]
    facts: dict[str, object] = field(default_factory=dict)
    lines: tuple[str, ...] = ()  # for report.md, under the formula

    @property
    def score(self) -> float | None:
        total = sum(part.weight for part in self.parts)
        return round(100 * sum(part.weight * part.passed for part in self.parts) / total, 1) if total else None

    @property
    def formula(self) -> str:
        """Every number that the score is made of, so that it can be worked out by hand."""
        if not self.parts:
            return "NOT RUN"
        total = sum(part.weight for part in self.parts)
        terms = " + ".join(f"{part.weight:g} x {part.passed:.3f} ({part.name})" for part in self.parts)
        return f"100 x ({terms}) / {total:g} = {self.score}"

    def to_json(self) -> dict[str, object]:
        parts = [{"name": p.name, "weight": p.weight, "passed": round(p.passed, 4), "how": p.told} for p in self.parts]
        return {"score": self.score, "formula": self.formula, "parts": parts, "measured": self.facts}


def ramp(value: float, worst: float, good: float) -> float:
    """How far `value` is from the worst (0) to good enough (1); `worst` may lie above `good`."""
    return min(1.0, max(0.0, (value - worst) / (good - worst)))


def short(text: str, most: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
