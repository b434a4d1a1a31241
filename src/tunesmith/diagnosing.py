"""The way back: from the errors of an evaluation to mended data, and on to the next evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from tunesmith import loop
from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError, UsageError, did_you_mean
from tunesmith.core.jsonl import read_json, read_jsonl, read_numbered
from tunesmith.core.project import Project
from tunesmith.core.records import Row, pair
from tunesmith.core.runlog import say
from tunesmith.diagnose import stage
from tunesmith.diagnose.cases import of_files
from tunesmith.diagnose.figures import table
from tunesmith.diagnose.fixes import Proposal, accepted
from tunesmith.diagnose.mend import FIX, mend


def diagnose(
    project: Project, name: str | None = None, *, eval_name: str | None = None, against: str | None = None
) -> Artifact:
    """The errors of an evaluation, base before and tuned after; `against` an earlier one, tuned before and after."""
    from tunesmith.bases import load_embedder
    from tunesmith.evaluate.stage import EvaluateConfig

    eval_ = project.open("eval", eval_name)
    config = loop.stage_config(project, "diagnose", stage.DiagnoseConfig)
    out = loop.new_place(project, "errors", name)
    old = project.open("eval", against) if against else None
    if old and old.name == eval_.name:
        raise UsageError(f"{old.name} against itself", expected="an earlier evaluation")
    embedder = load_embedder(project, project.config("evaluate", EvaluateConfig).embedder)
    set_, earlier = _set_of(project, eval_), (old, _set_of(project, old)) if old else None
    mended = _mended(project, earlier[1], set_) if earlier else frozenset()
    return stage.run(config, stage.DiagnoseInputs(eval_, set_, embedder, earlier, mended), out)


def predictions(path: Path, before: Path | None = None, training: Path | None = None) -> dict[str, Any]:
    """The figures of files from elsewhere; needs no project."""
    rows = [_row(f"{training}:{line}", obj) for line, obj in read_numbered(training)] if training else []
    return stage.of_cases(of_files(path, before), rows)


def summary(errors: Artifact) -> dict[str, Any]:
    """What `diagnose --json` prints."""
    return stage.summary(errors)


def told(errors: Artifact) -> str:
    """The figures of a diagnosis as lines for a terminal."""
    facts = read_json(errors.path / "report.json")
    before, after = facts["arms"]
    return table(facts["categories"], facts["not_run"], (before, after))


def proposals(errors: Artifact) -> list[Proposal]:
    """What a diagnosis proposed."""
    return [Proposal.from_json(obj) for obj in read_jsonl(errors.path / "fixes.jsonl")]


def choose(
    errors: Artifact, wanted: Collection[str], review: Callable[[Sequence[Proposal]], list[Proposal]] | None = None
) -> list[Proposal]:
    """The proposals that are named (ids, categories, or all), or those that a person accepts in `review`.

    Raises UsageError on a name that is none, and where nothing is proposed.
    """
    offered = proposals(errors)
    if not offered:
        raise UsageError(f"{errors.name} proposes nothing", fix=f"see {errors.path / 'report.md'}")
    known = {"all", *(proposal.category for proposal in offered), *(proposal.id for proposal in offered)}
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"no proposal '{unknown[0]}'", fix=did_you_mean(unknown[0], known - {p.id for p in offered}))
    return accepted(offered, wanted) if wanted or review is None else review(offered)


def fix(project: Project, errors: Artifact, chosen: Sequence[Proposal]) -> tuple[Artifact, Artifact]:
    """(raw, set): the proposals as raw rows, and the set that they make with all others. Held-out rows stay."""
    raw = mend(chosen, loop.current_raw(project), errors, project.place("raw"))
    return raw, loop.prepare(project)


def again(project: Project, errors: Artifact, set_: Artifact) -> tuple[Artifact, Artifact, Artifact]:
    """(run, evaluation, diagnosis): the same base, settings and seed on the mended set, and the same held-out rows.

    What was decided for the first run and evaluation (steps, learning rate, where answers are cut) is kept, so that the
    data are all that differs.
    """
    old = project.open("eval", errors.facts["parents"]["eval"]["name"])
    first = project.open("run", old.facts["parents"]["run"]["name"])
    settings = {key: value for key, value in first.facts["config"].items() if value is not None}
    folder = Path(first.facts["base_path"])  # the very same: the embedded base is made anew where its recipe changed
    base = str(folder) if folder.is_dir() else first.facts["base"]
    run = loop.train(project, base=base, set_name=set_.name, **settings)
    asked = old.facts["config"] | {"max_new_tokens": old.facts["max_new_tokens"]}
    done = loop.evaluate(project, run_name=run.name, **asked)
    return run, done, diagnose(project, eval_name=done.name, against=old.name)


def held_out(before: Artifact, after: Artifact) -> dict[str, int]:
    """Test rows of both sets: how many stayed, came and went. Only those that stayed are compared."""
    old, new = ({row["id"] for row in read_jsonl(one.path / "test.jsonl")} for one in (before, after))
    return {"stayed": len(old & new), "came": len(new - old), "went": len(old - new)}


def say_plan(chosen: Sequence[Proposal], raw: Artifact, set_: Artifact, rows: dict[str, int]) -> None:
    """What was accepted and what became of it."""
    counts: dict[tuple[str, str], int] = {}
    for proposal in chosen:
        key = (proposal.category, proposal.action)
        counts[key] = counts.get(key, 0) + 1
    for (category, action), count in counts.items():
        say(f"  {category}: {count} rows to {action}")
    say(f"  data/raw/{raw.name}, and with all others data/sets/{set_.name}: {set_.facts['train']} rows to train on")
    say(f"  {rows['stayed']} test rows stayed, {rows['came']} came, {rows['went']} went")


def _mended(project: Project, before: Artifact, after: Artifact) -> frozenset[str]:
    """The categories whose proposals lie between two sets: in the raw rows of `fix` that only the later was made of."""
    fresh = after.facts["parents"].keys() - before.facts["parents"].keys()
    files = [project.place("raw") / name / "provenance.jsonl" for name in fresh if name.startswith(FIX)]
    return frozenset(one["category"] for file in files if file.is_file() for one in read_jsonl(file))


def _set_of(project: Project, eval_: Artifact) -> Artifact:
    return project.open("set", eval_.facts["parents"]["set"]["name"])


def _row(where: str, obj: dict[str, Any]) -> Row:
    """A canonical row, or {prompt, output}."""
    try:
        return Row.from_json(obj) if "messages" in obj or "text" in obj else pair(obj["prompt"], obj["output"])
    except (KeyError, TypeError) as error:
        expected = 'a row of Tunesmith, or {"prompt", "output"}'
        raise DataError("not a training row", where=where, expected=expected) from error
