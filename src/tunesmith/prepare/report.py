"""What the owner of the data should know, on a page: counts, decisions, four scores with their formulas, findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tunesmith.core.records import Reject
from tunesmith.prepare.finding import Axis, Finding
from tunesmith.prepare.groups import Questions
from tunesmith.prepare.quality import Audit
from tunesmith.prepare.split import SPLITS, Splits
from tunesmith.text.residue import Unwrapped

SHOWN = 10  # rows of a finding; findings.jsonl and rejects.jsonl hold all
ORDER = ("error", "warning", "note")


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


def page(receipt: dict[str, Any], found: Audit, rejects: Sequence[Reject], notes: Iterable[str]) -> str:
    """report.md."""
    lines = [f"# Set {receipt['set_id']}", "", "| | rows |", "|---|---:|", f"| in | {receipt['rows_in']} |"]
    lines += [f"| rejected: {reason} | {count} |" for reason, count in receipt["rejected"].items()]
    lines += [f"| {name} | {receipt[name]} |" for name in ("kept", *SPLITS)]
    lines += ["", f"{receipt['unwrapped']} rows were freed of a template; {receipt['groups']} groups of questions."]
    again = found.repeated
    told = f"{again['rows']} rows ask {again['questions']} questions again" if again["questions"] else ""
    lines += [f"{told}; {again['with_different_answers']} of these have different answers."] if told else []
    lines += ["", *(f"- {note}" for note in notes)]
    for part in (_scores(found.axes), _rejected(rejects), _findings(found.findings), _benchmarks(found)):
        lines += ["", *part]
    return "\n".join(lines).rstrip() + "\n"


def _scores(axes: dict[str, Axis]) -> Iterator[str]:
    yield "## Scores"
    yield ""
    yield "0 to 100; a score is the weighted share of what passed. It says where to look, not how good a model will be."
    for axis in axes.values():
        score = "NOT RUN" if axis.score is None else f"{axis.score}"
        yield f"\n### {axis.name}: {score}\n"
        yield f"`{axis.formula}`\n"
        yield from (f"- {part.name}: {part.told}" for part in axis.parts)
        yield from (f"  - {line.strip()}" if line.startswith("  ") else f"- {line}" for line in axis.lines)


def _rejected(rejects: Sequence[Reject]) -> Iterator[str]:
    """Where the rows lay that are not in the set."""
    if rejects:
        yield "## Rejected rows"
        yield ""
    for reason, count in Counter(reject.reason for reject in rejects).items():
        places = [f"{r.source}:{r.line}" for r in rejects if r.reason == reason]
        yield f"- {reason}: {', '.join(places[:SHOWN])}" + (f" and {count - SHOWN} more" if count > SHOWN else "")


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    yield "## Findings"
    yield ""
    yield "Nothing was deleted for these. findings.jsonl has every row of each." if findings else "None."
    for finding in sorted(findings, key=lambda finding: (ORDER.index(finding.severity), -finding.count)):
        yield f"\n### {finding.name} ({finding.severity}): {finding.count}\n"
        yield f"{finding.explanation[0].upper()}{finding.explanation[1:]}. Fix: {finding.fix}.\n"
        yield from (f"- {line}" for line in finding.lines(SHOWN))
        if len(finding.hits) > SHOWN:
            yield f"- and {len(finding.hits) - SHOWN} more"


def _benchmarks(found: Audit) -> Iterator[str]:
    if found.leaks:
        yield "## Benchmarks"
        yield ""
    for leak in found.leaks:
        items = f"{leak.items} items ({leak.short} too short to compare)"
        yield f"- {leak.file}: {len(leak.hits)} rows hold a question of its {items}"
