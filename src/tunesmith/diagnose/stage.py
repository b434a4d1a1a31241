"""diagnose: what is wrong with the answers of an evaluation, where it may come from, what to do -> errors/<name>."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_json, read_rows, write_json, write_jsonl
from tunesmith.core.records import Row
from tunesmith.diagnose.cases import Case, of_eval, paired_with
from tunesmith.diagnose.categories import Known
from tunesmith.diagnose.causes import Embedder, Index, Near
from tunesmith.diagnose.clusters import clusters
from tunesmith.diagnose.figures import Found, categories, diagnosed, not_run
from tunesmith.diagnose.fixes import propose
from tunesmith.diagnose.page import page
from tunesmith.metrics.overlap import token_f1


class DiagnoseConfig(Config):
    """How errors are looked for."""

    nearest: int = Field(default=3, ge=0)
    """training rows named for each error"""
    failing_below: float = Field(default=0.3, ge=0, le=1)
    """token F1 under which an answer without an error of a category is a failure, and put into a cluster"""


@dataclass(frozen=True)
class DiagnoseInputs:
    """`set_`: what the run was trained on. `earlier`: an evaluation before it and its set, to compare with.

    `mended`: the categories whose proposals were accepted between the two.
    """

    eval_: Artifact
    set_: Artifact
    embedder: Embedder | None = None
    earlier: tuple[Artifact, Artifact] | None = None
    mended: frozenset[str] = frozenset()


def run(config: DiagnoseConfig, inputs: DiagnoseInputs, out: Path) -> Artifact:
    """Find, explain, propose, write. Base against tuned; with `earlier`, the tuned models of both evaluations.

    Both evaluations are judged by what the earlier set tells, so that the yardstick does not move with the data.
    Raises DataError where the evaluations share no row.
    """
    training = _training(inputs.set_)
    cases, arms, known = _cases(inputs, training)
    found = diagnosed(cases, known)
    figures = categories(found, arms[-1], arms[0], inputs.mended)
    wrong = [one for one in found if any(one.errors.values())]
    near = _nearest(wrong, arms[-1], training, inputs.embedder, config.nearest)
    errors = [_error(one, some, arms) for one, some in zip(wrong, near, strict=True)]
    counts = {name: cell["count"] for name, cell in figures.items()}
    proposals = propose(training, known, counts, _by_category(wrong, near, arms[-1]))
    sources = {"evaluation": inputs.eval_.name, "set": inputs.set_.name}
    sources |= {"compared with": inputs.earlier[0].name} if inputs.earlier else {}
    facts = {
        "name": out.name,
        "n": len(cases),
        "sources": sources,
        "arms": list(arms),
        "mended": sorted(inputs.mended),
        "categories": figures,
        "not_run": not_run(found),
        "clusters": _clusters(found, arms[-1], config.failing_below, inputs.embedder),
        "nearest_by": "words and meaning" if inputs.embedder else "words",
        "proposals": len(proposals),
    }
    with writing(out) as work:
        write_jsonl(work / "errors.jsonl", errors)
        write_jsonl(work / "fixes.jsonl", (proposal.to_json() for proposal in proposals))
        write_json(work / "report.json", facts)
        (work / "report.md").write_text(page(facts, errors, proposals), encoding="utf-8", newline="\n")
        parents = {"eval": inputs.eval_, "set": inputs.set_}
        told = {kind: {"name": one.name, "hash": one.hash} for kind, one in parents.items()}
        return seal(work, out, "errors", {"config": config.model_dump(mode="json"), "parents": told, **_brief(facts)})


def summary(artifact: Artifact) -> dict[str, Any]:
    """What `diagnose --json` prints."""
    facts = read_json(artifact.path / "report.json")
    keys = ("n", "arms", "mended", "categories", "not_run", "clusters", "proposals")
    return {"path": str(artifact.path), "name": artifact.name, **{key: facts[key] for key in keys}}


def of_cases(cases: Sequence[Case], training: Sequence[Row]) -> dict[str, Any]:
    """The figures of files from elsewhere: {n, categories {name: {count, rate, low, high, ...}}, not_run}."""
    known = Known.of(training, [case.reference for case in cases if case.reference])
    found = diagnosed(cases, known)
    before = "base" if "base" in cases[0].said else ""
    return {"n": len(cases), "categories": categories(found, "tuned", before), "not_run": not_run(found)}


def _training(set_: Artifact) -> list[Row]:
    return list(read_rows(set_.path / "train.jsonl"))


def _cases(inputs: DiagnoseInputs, training: Sequence[Row]) -> tuple[list[Case], tuple[str, str], Known]:
    mine = of_eval(inputs.eval_)
    if inputs.earlier is None:
        return mine, ("base", "tuned"), Known.of(training)
    eval_, set_ = inputs.earlier
    both = paired_with(of_eval(eval_), mine)
    if not both:
        raise DataError(f"{eval_.name} and {inputs.eval_.name} share no row", expected="the same held-out rows")
    return both, ("before", "after"), Known.of(_training(set_))


def _nearest(
    wrong: Sequence[Found], arm: str, training: Sequence[Row], embedder: Embedder | None, count: int
) -> list[list[Near]]:
    """The nearest training rows of each case that is wrong in the later arm; none for the others."""
    asked = [(one.case.prompt, one.case.said[arm][0]) for one in wrong if one.errors[arm]]
    found = iter(Index(training, embedder).nearest(asked, count) if count and asked else [[]] * len(asked))
    return [next(found) if one.errors[arm] else [] for one in wrong]


def _by_category(wrong: Sequence[Found], near: Sequence[Sequence[Near]], arm: str) -> Mapping[str, list[Row]]:
    """The training rows nearest to the errors of each category, each once, in the order of the errors."""
    out: dict[str, dict[str, Row]] = {}
    for one, some in zip(wrong, near, strict=True):
        for category in one.errors[arm]:
            out.setdefault(category, {}).update({found.row.id: found.row for found in some})
    return {category: list(rows.values()) for category, rows in out.items()}


def _error(one: Found, near: Sequence[Near], arms: Sequence[str]) -> dict[str, Any]:
    """A line of errors.jsonl: what was said and found in each arm, and what the change of each category is."""
    case = one.case
    first, last = (one.errors[arm] for arm in arms)
    change = {name: _way(name in first, name in last) for name in sorted(first.keys() | last.keys())}
    nearest = [{"id": n.row.id, "place": f"{n.row.meta.source}:{n.row.meta.line}", "score": n.score} for n in near]
    texts = {"prompt": case.prompt, "reference": case.reference}
    said = {arm: case.said[arm][0] for arm in arms}
    errors = {arm: dict(one.errors[arm]) for arm in arms}
    place = {"id": case.id, "place": case.place, "group": case.group}
    return {**place, **texts, "said": said, "errors": errors, "change": change, "nearest": nearest}


def _way(before: bool, after: bool) -> str:
    return "persisting" if before and after else "introduced" if after else "fixed"


def _clusters(found: Sequence[Found], arm: str, below: float, embedder: Embedder | None) -> list[dict[str, Any]]:
    """The failures that no category explains, by what is asked."""
    failed = [
        one.case
        for one in found
        if not one.errors[arm] and one.case.reference and token_f1(one.case.said[arm][0], one.case.reference) < below
    ]
    made = clusters([case.prompt for case in failed], embedder)
    return [{"name": cluster.name, "rows": [failed[i].place for i in cluster.members]} for cluster in made]


def _brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("n", "sources", "proposals")} | {
        "errors": {name: cell["count"] for name, cell in facts["categories"].items() if cell["count"]}
    }
