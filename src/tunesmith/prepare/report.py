"""What the owner of the data should know: in numbers for programs, and on a page for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.records import Row
from tunesmith.prepare.clean import place
from tunesmith.prepare.groups import Questions, asked
from tunesmith.prepare.residue import Unwrapped, has_residue
from tunesmith.prepare.split import SPLITS, Splits
from tunesmith.text.similar import normalise

SHOWN = 10
CONSTANT = 5  # different questions that get the same answer
NULLS = ("null", "nan", "none", "undefined", "n/a")  # what a program writes where it had nothing


@dataclass(frozen=True)
class Finding:
    """Something worth a look that was left as it is: how often, and where."""

    title: str
    count: int
    examples: tuple[str, ...] = ()


def find(rows: Sequence[Row]) -> dict[str, Finding]:
    """The findings about the rows that were kept, by name."""
    return {
        "residue": _listed("Rows that still hold a template's mark", filter(has_residue, rows)),
        "nulls": _listed("Answers that look like a missing value", (r for r in rows if _answer(r) in NULLS)),
        "contradictions": _contradictions(rows),
        "constants": _constants(rows),
    }


def _answer(row: Row) -> str:
    return normalise(row.answer if row.chosen is None else row.chosen)


def _listed(title: str, rows: Iterable[Row]) -> Finding:
    found = [f"{place(row)} {_short(row.question)}" for row in rows]
    return Finding(title, len(found), tuple(found[:SHOWN]))


def _contradictions(rows: Sequence[Row]) -> Finding:
    """Questions that are asked alike, under the same system message, and answered differently."""
    answers: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if not row.text:
            system = "".join(m.content for m in row.messages if m.role == "system")
            answers.setdefault((system, asked(row)), {}).setdefault(_answer(row), row)
    found = [list(given.values()) for given in answers.values() if len(given) > 1]
    examples = [f"{_short(given[0].question)} ({', '.join(map(place, given))})" for given in found[:SHOWN]]
    return Finding("Questions with several different answers", len(found), tuple(examples))


def _constants(rows: Sequence[Row]) -> Finding:
    """Answers that many different questions get: a guard, or a habit that the model will pick up."""
    askers: dict[str, set[str]] = {}
    said: dict[str, str] = {}
    for row in rows:
        if answer := _answer(row):
            askers.setdefault(answer, set()).add(asked(row))
            said.setdefault(answer, row.chosen or row.answer)
    often = sorted((-len(who), answer) for answer, who in askers.items() if len(who) >= CONSTANT)
    examples = [f"{-count} questions: {_short(said[answer])}" for count, answer in often[:SHOWN]]
    return Finding(f"Answers given to {CONSTANT} or more different questions", len(often), tuple(examples))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:87] + "..."


def notes(splits: Splits, bare: Unwrapped, asking: Questions, facts: dict[str, Any]) -> list[str]:
    """What was decided that the owner may not expect."""
    out = [f"template taken off: {name}" for name in bare.names]
    if asking.frame:
        out.append(f"nearly all questions share '{asking.frame}': they are compared without it")
    leaks = f"{facts['leaked']} pairs of questions are alike across splits"
    out.append(f"{leaks}; in a random split it would be {facts['leaked_random_split']}")
    groups = Counter(row.meta.group for rows in splits.values() for row in rows)
    name, most = groups.most_common(1)[0]
    if 2 * most > facts["kept"] and len(groups) > 1:
        out.append(f"one group ({name}) holds {most} of {facts['kept']} rows: their questions are nearly the same")
    if len(groups) < len(SPLITS):
        out.append(f"the rows form only {len(groups)} group(s) of questions: not every split has rows")
    return out


def page(receipt: dict[str, Any], findings: Iterable[Finding], notes: Iterable[str]) -> str:
    """report.md."""
    lines = [f"# Set {receipt['set_id']}", "", "| | rows |", "|---|---:|", f"| in | {receipt['rows_in']} |"]
    lines += [f"| rejected: {reason} | {count} |" for reason, count in receipt["rejected"].items()]
    lines += [f"| {name} | {receipt[name]} |" for name in ("kept", "train", "valid", "test")]
    lines += ["", f"{receipt['unwrapped']} rows were freed of a template; {receipt['groups']} groups of questions."]
    lines += ["", *(f"- {note}" for note in notes)]
    for finding in findings:
        if finding.count:
            lines += ["", f"## {finding.title}: {finding.count}", "", *(f"- {line}" for line in finding.examples)]
            lines += [f"- and {finding.count - SHOWN} more"] if finding.count > SHOWN else []
    return "\n".join(lines).rstrip() + "\n"
