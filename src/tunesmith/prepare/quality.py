"""The four axes of a set: quality, diversity, realness, amount. Everything is measured; nothing is deleted.

The table of checks is what `reject` under [prepare] may name: only then are the rows of a finding left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import UsageError, did_you_mean
from tunesmith.core.records import Reject, Row
from tunesmith.prepare.amount import amount
from tunesmith.prepare.checks import CHECKS
from tunesmith.prepare.clean import reject
from tunesmith.prepare.corpus import Corpus, Side, answers, asks
from tunesmith.prepare.corpus_checks import CORPUS_CHECKS
from tunesmith.prepare.diversity import diversity
from tunesmith.prepare.finding import Axis, Check, Finding, Part, Severity, short
from tunesmith.prepare.leakage import Leak, leaks, read_benchmark
from tunesmith.prepare.realness import realness
from tunesmith.text.similar import normalise

ALL: dict[str, Check] = {check.name: check for check in (*CHECKS, *CORPUS_CHECKS)}
WEIGHTS: dict[Severity, float] = {"error": 0.5, "warning": 0.4, "note": 0.1}
CONSTANT = 5  # different questions that get the same answer
IDS = 20  # row ids of a finding in the receipt; findings.jsonl has all


@dataclass(frozen=True)
class Audit:
    """The axes by name, the findings about rows, and what benchmarks share with the set."""

    axes: dict[str, Axis]
    findings: list[Finding]
    leaks: list[Leak]
    repeated: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """What the receipt says."""
        return {
            "scores": {name: axis.score for name, axis in self.axes.items()},
            "findings": {finding.name: finding.count for finding in self.findings},
            "repeated_questions": self.repeated,
            "quality": {
                "axes": {name: axis.to_json() for name, axis in self.axes.items()},
                "findings": {finding.name: _facts(finding) for finding in self.findings},
                "benchmarks": {
                    leak.file: {"items": leak.items, "short": leak.short, "rows": len(leak.hits)} for leak in self.leaks
                },
            },
        }

    def records(self) -> Iterable[dict[str, object]]:
        """Lines of findings.jsonl: every row of every finding."""
        for finding in self.findings:
            yield from finding.records()


def audit(
    corpus: Corpus,
    came: Sequence[Row],
    train_rows: int,
    batch_size: int = 16,
    benchmarks: Sequence[str] = (),
    tokens: int | None = None,
) -> Audit:
    """Measure a set. `came`: all rows as they came in, without their templates; `benchmarks`: files to compare with.

    `batch_size` is training's, in rows; `tokens`: of all answers, None where nobody counted them.
    Raises DataError for a benchmark that cannot be read.
    """
    hits = {check.name: tuple(check.function(corpus)) for check in ALL.values()}
    found = [_finding(check, corpus, hits[check.name]) for check in ALL.values()]
    asked, said = _plain(corpus.asked, came, asks), _plain(corpus.answered, came, lambda row: "\n".join(answers(row)))
    again, facts = _repeated(came, asked, said)
    files = [(Path(path).name, read_benchmark(Path(path))) for path in benchmarks]
    held = leaks(corpus, files) if files else []
    found += [_constants(came, asked, said), again, *map(_leak, held)]
    axes = (_quality(corpus, hits), diversity(corpus), realness(corpus), amount(corpus, train_rows, batch_size, tokens))
    return Audit({axis.name: axis for axis in axes}, [f for f in found if f.count], held, facts)


def leave_out(corpus: Corpus, names: Sequence[str]) -> tuple[list[Row], list[Reject]]:
    """The rows without those that the named checks find. Raises UsageError for a name that is no check."""
    flagged: dict[int, Reject] = {}
    for name in names:
        if name not in ALL:
            raise UsageError(f'reject = ["{name}"]: no such check', fix=did_you_mean(name, ALL))
        for i, detail in ALL[name].function(corpus) if corpus.rows else ():
            flagged.setdefault(i, reject(corpus.rows[i], name, detail))
    return [row for i, row in enumerate(corpus.rows) if i not in flagged], [flagged[i] for i in sorted(flagged)]


def _finding(check: Check, corpus: Corpus, hits: Sequence[tuple[int, str]]) -> Finding:
    fix = check.fix or (
        f'mend these lines, then `tunesmith collect FILE`; or leave them out: `reject = ["{check.name}"]` under '
        "[prepare] in tunesmith.toml, then `tunesmith prepare`"
    )
    rows = tuple((corpus.rows[i], detail) for i, detail in hits)
    return Finding(check.name, check.severity, check.explanation, fix, rows, len(rows))


def _quality(corpus: Corpus, hits: Mapping[str, Sequence[tuple[int, str]]]) -> Axis:
    """A row with an error loses all, one with no worse than a warning half, one with no worse than a note a tenth."""
    parts = []
    failed: set[int] = set()
    rows = len(corpus.rows)
    for severity, weight in WEIGHTS.items():
        failed |= {i for name, found in hits.items() if ALL[name].severity == severity for i, _ in found}
        name = f"rows without {'an error' if severity == 'error' else f'a {severity} or worse'}"
        parts.append(Part(name, weight, 1 - len(failed) / rows, f"{rows - len(failed)} of {rows} rows"))
    return Axis("quality", tuple(parts), {"checks": len(hits)})


def _plain(side: Side, rows: Sequence[Row], text: Callable[[Row], str]) -> list[str]:
    """The normalised text of each row; those that the corpus holds are not worked out again."""
    known = dict(zip(side.raw, side.plain, strict=True))
    return [known[raw] if raw in known else normalise(raw) for raw in map(text, rows)]


def _constants(rows: Sequence[Row], asked: Sequence[str], said: Sequence[str]) -> Finding:
    """Answers that many different questions get: a guard, or a habit that the model will pick up."""
    askers: dict[str, dict[str, Row]] = {}
    for row, question, answer in zip(rows, asked, said, strict=True):
        if answer:
            askers.setdefault(answer, {}).setdefault(question, row)
    often = sorted((-len(who), answer) for answer, who in askers.items() if len(who) >= CONSTANT)
    hits = []
    for count, answer in often:
        first = next(iter(askers[answer].values()))
        hits.append((first, f"{-count} questions: {short(' '.join(answers(first)))}"))
    told = f"an answer to {CONSTANT} or more different questions: a guard, or a habit that the model will pick up"
    fix = "nothing where it is meant (a guard, labels); else give these questions answers of their own"
    return Finding("constants", "note", told, fix, tuple(hits), len(hits))


def _repeated(rows: Sequence[Row], asked: Sequence[str], said: Sequence[str]) -> tuple[Finding, dict[str, int]]:
    """Questions asked more than once, over all rows that came in, whatever became of them."""
    places: dict[str, list[int]] = {}
    for i, question in enumerate(asked):
        places.setdefault(question, []).append(i)
    groups = [members for members in places.values() if len(members) > 1]
    differing = 0
    hits = []
    for members in groups:
        differs = len({said[i] for i in members}) > 1
        differing += differs
        lines = ", ".join(str(rows[i].meta.line) for i in members)
        same = "different answers" if differs else "the same answer"
        hits.append((rows[members[0]], f"lines {lines}, {same}: '{short(asks(rows[members[0]]), 50)}'"))
    facts = {"questions": len(groups), "rows": sum(map(len, groups)), "with_different_answers": differing}
    told = "questions that several rows ask, of all rows that came in"
    fix = "equal answers: nothing, the later rows were rejected; different ones: keep the right one (see contradiction)"
    return Finding("repeated_questions", "note", told, fix, tuple(hits), len(hits)), facts


def _leak(leak: Leak) -> Finding:
    hits = tuple((row, f"item {number}") for row, number in leak.hits)
    told = f"rows that hold a question of {leak.file} ({leak.items} items): a score on it would be remembered"
    fix = "delete these lines, then `tunesmith collect FILE` and `tunesmith prepare`; or do not measure on this file"
    return Finding(f"benchmark {leak.file}", "warning", told, fix, hits, len(hits))


def _facts(finding: Finding) -> dict[str, Any]:
    return {
        "count": finding.count,
        "severity": finding.severity,
        "explanation": finding.explanation,
        "fix": finding.fix,
        "rows": [row.id for row, _ in finding.hits[:IDS]],
    }
