"""The doors of people's votes: ask for them, rank the models by them, hand them on as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.errors import DataError, Interrupted, UsageError
from tunesmith.core.jsonl import read_rows, write_jsonl, write_rows
from tunesmith.core.project import Project
from tunesmith.core.records import Row
from tunesmith.evaluate import rank
from tunesmith.evaluate.ballot_page import terminal
from tunesmith.evaluate.votes import Booth, Cast, VoteStore, ballots, check_rater, consistency, first_votes, preferences

STORE = "tunesmith.db"
ARMS = ("base", "tuned")


def vote(
    project: Project, eval_name: str | None = None, *, arms: str | None = None, rater: str = "me"
) -> dict[str, Any]:
    """Ask one person at the terminal. Raises Interrupted on Ctrl-C, with every vote kept."""
    rater, pair = check_rater(rater), _arms(arms)
    evaluation = project.open("eval", eval_name)
    pairs, equal = ballots(evaluation, pair, _rows(project, evaluation))
    store = VoteStore(project.path / STORE)
    try:
        booth = Booth(store, evaluation, pairs, rater)
        counts = terminal(booth)
    except KeyboardInterrupt as stop:
        done = booth.progress()
        what = f"stopped; {done['voted']} votes are kept, {done['left']} pairs are left"
        raise Interrupted(what, fix="tunesmith vote goes on where you were") from stop
    finally:
        store.close()
    return {"eval": evaluation.name, "arms": list(pair), "rater": rater, "pairs": len(pairs), "equal": equal, **counts}


def rank_file(path: Path) -> tuple[dict[str, Any], str]:
    """(what `rank --json` prints, what people read) of a file of votes from anywhere."""
    found = rank.facts(rank.read_votes(path))
    return found, rank.table(found)


def rank_project(project: Project, eval_name: str | None = None) -> tuple[dict[str, Any], str]:
    """The same of a project's own votes: all of them, or those on one evaluation. Hidden repeats do not count."""
    casts = _casts(project, eval_name)
    counted = first_votes(casts)
    if not counted:
        raise UsageError("nobody has voted yet", fix="tunesmith vote")
    names = {cast.evaluation: _names(project, cast.evaluation) for cast in counted}
    several = len(names) > 1
    found = rank.facts([cast.vote(names[cast.evaluation] if several else {}) for cast in counted])
    found["self"] = consistency(casts)
    return found, "\n".join([rank.table(found), *(_steady(one) for one in found["self"])])


def save(project: Project, file: Path, eval_name: str | None = None) -> dict[str, Any]:
    """The votes as rows {item, a, b, winner, rater}, which `rank` and `judge --votes` read."""
    _free(file)
    votes = [cast.vote({}) for cast in first_votes(_casts(project, eval_name))]
    rows = [{"item": v.item, "a": v.a, "b": v.b, "winner": v.winner, "rater": v.rater} for v in votes]
    if not rows:
        raise UsageError("nobody has voted yet", fix="tunesmith vote")
    return {"path": str(file), "votes": write_jsonl(file, rows)}


def export(project: Project, file: Path, eval_name: str | None = None) -> dict[str, Any]:
    """The votes as preference rows for `collect`. Votes in = rows and rejects, by reason, of one or more votes each."""
    _free(file)
    casts = _casts(project, eval_name)
    rows, rejects = preferences(casts)
    if not rows:
        raise DataError("no vote prefers one answer", expected=f"{len(first_votes(casts))} votes; ties make no row")
    reasons = [reject.reason for reject in rejects]
    write_rows(file, rows)
    told = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    return {"path": str(file), "votes": len(first_votes(casts)), "kept": len(rows), "rejected": told}


def collect_command(project: Project, file: Path) -> str:
    """What to type next. A set holds rows of one kind: beside questions with answers, preferences want a project."""
    kinds = {_is_preference(project.place("raw") / name) for name in project.names("raw")}
    if kinds <= {True}:
        return f"tunesmith collect {file}"
    return f"tunesmith new {project.path.name}-preferences --data {file}"


def _is_preference(raw: Path) -> bool:
    first = next(read_rows(open_artifact(raw, "raw").path / "examples.jsonl"), None)
    return first is not None and first.chosen is not None


def _arms(given: str | None) -> tuple[str, str]:
    names = tuple(name.strip() for name in given.split(",")) if given else ARMS
    if len(names) != 2 or names[0] == names[1] or not all(names):
        raise UsageError(f"--arms {given}", expected="two arms, such as --arms base,tuned")
    return names[0], names[1]


def _rows(project: Project, evaluation: Artifact) -> dict[str, Row]:
    """The rows that were asked, by id; none where their set is gone."""
    parent = evaluation.facts.get("parents", {}).get("set", {}).get("name")
    folder = project.place("set") / str(parent)
    file = folder / f"{evaluation.facts.get('split', 'test')}.jsonl"
    return {row.id: row for row in read_rows(file)} if file.is_file() else {}


def _casts(project: Project, eval_name: str | None) -> list[Cast]:
    path = project.path / STORE
    if not path.is_file():
        raise UsageError("nobody has voted yet", fix="tunesmith vote")
    store = VoteStore(path)
    try:
        casts = [cast for _, cast in store.standing()]
    finally:
        store.close()
    return [cast for cast in casts if eval_name in (None, cast.evaluation)]


def _names(project: Project, evaluation: str) -> dict[str, str]:
    """What the arms of an evaluation are called among those of others: the tuned model by its run."""
    try:
        run = project.open("eval", evaluation).facts["parents"]["run"]["name"]
    except (UsageError, DataError, KeyError):  # the evaluation is gone, or was made without a run
        run = f"tuned of {evaluation}"
    return {"tuned": run}


def _steady(one: dict[str, Any]) -> str:
    same = f"the same again {one['same']} of {one['repeats']} times" if one["repeats"] else "no hidden repeats yet"
    side = "" if one["first_slot"] is None else f"; A in {one['first_slot']:.0%} of {one['sided']} votes for a side"
    return f"  {one['rater']}: {same}{side}"


def _free(file: Path) -> None:
    if file.exists():
        raise UsageError(f"{file} exists", fix="choose another name, or remove it first")
