"""What the owner of the data should know, on a page: counts, decisions, four scores with their formulas, findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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
    out.append(leak_note(facts))
    groups = Counter(row.meta.group for rows in splits.values() for row in rows)
    name, most = groups.most_common(1)[0]
    if 2 * most > facts["kept"] and len(groups) > 1:
        out.append(f"one group ({name}) holds {most} of {facts['kept']} rows: their questions are nearly the same")
    if len(groups) < len(SPLITS):
        out.append(f"the rows form only {len(groups)} group(s) of questions: not every split has rows")
    return [*out, *_models(facts)]


def leak_note(facts: dict[str, Any]) -> str:
    leaks = f"{facts['leaked']} pairs of questions are alike across splits"
    return f"{leaks}; in a random split it would be {facts['leaked_random_split']}"


def _models(facts: dict[str, Any]) -> Iterator[str]:
    """What models say of the rows, in a line each."""
    if hard := facts["difficulty"]:
        middle = ", ".join(f"{name} {hard[name]['median']}" for name in ("perplexity", "ifd") if hard[name])
        left = f", {hard['left_out']} left out" if hard["left_out"] else ""
        yield f"difficulty by {hard['model']}: median {middle or 'of nothing'} ({hard['answers']} answers{left})"
    if judged := facts["judge"]:
        mean = judged["mean"]
        shown = f"{judged['rows']} rows, {judged['unreadable']} without a readable score"
        interval = "" if mean["low"] is None else f" [{mean['low']:.2f}, {mean['high']:.2f}]"
        score = "no score" if mean["mean"] is None else f"mean {mean['mean']:.2f}{interval}"
        yield f"judged by {judged['model']}: {score} of 5 ({shown})"


def page(receipt: dict[str, Any], found: Audit, rejects: Sequence[Reject]) -> str:
    """report.md."""
    again = found.repeated
    told = f"{again['rows']} rows ask {again['questions']} questions again" if again["questions"] else ""
    lines = [*head(receipt, f"{told}; {again['with_different_answers']} of these have different answers." * bool(told))]
    parts = [_scores(found.axes), _difficulty(receipt), _judge(receipt), _rejected(rejects)]
    for part in map(list, (*parts, _findings(found.findings), _benchmarks(found))):
        lines += ["", *part] if part else []
    return "\n".join(lines).rstrip() + "\n"


def head(receipt: dict[str, Any], told: str = "") -> list[str]:
    """Where the rows went, and what was decided: the part that a set made in shards has, too."""
    lines = [f"# Set {receipt['set_id']}", "", "| | rows |", "|---|---:|", f"| in | {receipt['rows_in']} |"]
    lines += [f"| rejected: {reason} | {count} |" for reason, count in receipt["rejected"].items()]
    lines += [f"| {name} | {receipt[name]} |" for name in ("kept", *SPLITS)]
    lines += ["", f"{receipt['unwrapped']} rows were freed of a template; {receipt['groups']} groups of questions."]
    return [*lines, *([told] if told else []), "", *(f"- {note}" for note in receipt["notes"])]


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


def _difficulty(receipt: dict[str, Any]) -> Iterator[str]:
    """How likely a model finds the answers."""
    if not (hard := receipt["difficulty"]) or not hard["answers"]:
        return
    yield "## Difficulty"
    yield ""
    left = f"{hard['left_out']} left out: too long for it, or refused by its template"
    yield f"By {hard['model']}, on {hard['answers']} answers ({left})."
    yield "Perplexity of the answer after its question; IFD = loss of the answer after its question / loss of it alone,"
    yield f"so at 1 the question does not help: {hard['ifd_of_1_or_more']} answers are there or above."
    yield ""
    yield f"| | {' | '.join(hard['perplexity'])} |"
    yield f"|---|{'---:|' * len(hard['perplexity'])}"
    for name in ("perplexity", "ifd"):
        yield f"| {name} | {' | '.join(f'{value:g}' for value in hard[name].values())} |"


def _judge(receipt: dict[str, Any]) -> Iterator[str]:
    """What a model thinks of a sample of answers."""
    if judged := receipt["judge"]:
        yield "## Judge"
        yield ""
        counts = ", ".join(f"{score}: {count}" for score, count in judged["scores"].items())
        yield f"A model's opinion, not a measurement. Rows by score: {counts}; not readable: {judged['unreadable']}."


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
