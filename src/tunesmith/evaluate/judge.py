"""A model as the judge of two arms' answers: every pair in both orders, every reply counted, the judge judged too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_jsonl, write_json, write_jsonl
from tunesmith.engine.base import ChatEngine, ChatRequest
from tunesmith.engine.endpoint import EndpointConfig
from tunesmith.evaluate import judge_report
from tunesmith.evaluate.opinions import LETTERS, MARKS, PAIR, SINGLE, Case, Opinion, Side, first_side, read, showing


class JudgeConfig(EndpointConfig):
    """Who judges two arms' answers, and what is asked."""

    local: str | None = None
    """a model directory, hub id or run that judges in place of the endpoint; unset for the endpoint"""
    mode: Literal["pairwise", "rubric"] = "pairwise"
    """pairwise: which of two answers is better; rubric: a mark from 1 to 5 for each answer alone"""
    criteria: str = "correct, complete and clear, and no longer than it needs to be"
    """what an answer should be, in words that the judge is given"""
    orders: Literal[1, 2] = 2
    """2: each pair is shown both ways round; 1: one way, drawn for each item, at half the cost"""
    show_reference: bool = True
    """show the judge the row's own answer, where it has one"""
    limit: Annotated[int, Field(ge=1)] | None = None
    """judge only so many items, the same ones each time; unset for all"""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """tokens that a reply may have, a thought before the verdict included"""
    seed: int = 0
    """the seed of the side that is shown first"""


@dataclass(frozen=True)
class Votes:
    """People's verdicts on the same two arms: rows {item, winner: a | b | tie | both_bad, rater}. `unused`: those that
    are about other arms or items."""

    rows: tuple[Mapping[str, Any], ...] = ()
    unused: int = 0


@dataclass(frozen=True)
class JudgeInputs:
    """`names`: what arms a and b are called. `unpaired`: items that only one of them has answered."""

    cases: Sequence[Case]
    names: tuple[str, str]
    judge: ChatEngine
    votes: Votes = Votes()
    unpaired: int = 0


def cases_of(a: Path, b: Path) -> tuple[list[Case], int]:
    """(pairs by id, items that only one file has) of two files of rows {id, prompt, output, reference?, group?}.

    Raises DataError where a row is not one, and where the files have no item in common.
    """
    first, second = _outputs(a), _outputs(b)
    both = [name for name in first if name in second]
    if not both:
        raise DataError(f"no id stands in both {a} and {b}", expected="rows {id, prompt, output}, the same ids in both")
    cases = []
    for name in both:
        row = first[name]
        more = {key: str(row.get(key) or "") for key in ("reference", "group")}
        cases.append(Case(name, str(row["prompt"]), str(row["output"]), str(second[name]["output"]), **more))
    return cases, len(first) + len(second) - 2 * len(both)


def _outputs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(read_jsonl(path), 1):
        if missing := [key for key in ("id", "prompt", "output") if key not in row]:
            raise DataError(f"no '{missing[0]}'", where=f"{path}: row {number}", expected="{id, prompt, output}")
        if str(row["id"]) in found:
            raise DataError(f"the id {row['id']} stands there twice", where=f"{path}: row {number}")
        found[str(row["id"])] = row
    return found


def cases_of_eval(eval_: Artifact) -> list[Case]:
    """Base (a) and tuned (b) of an evaluation, on the same rows."""
    rows = read_jsonl(eval_.path / "predictions.jsonl")
    return [
        Case(r["id"], r["prompt"], r["base"], r["tuned"], r.get("reference") or "", r.get("group") or "") for r in rows
    ]


def votes_of(path: Path, names: tuple[str, str], items: Sequence[str]) -> Votes:
    """The votes of a file on these two arms, turned round where it names them the other way round."""
    rows, unused, known = [], 0, set(items)
    for number, row in enumerate(read_jsonl(path), 1):
        if missing := [key for key in ("item", "a", "b", "winner") if key not in row]:
            where = f"{path}: row {number}"
            raise DataError(f"no '{missing[0]}'", where=where, expected="{item, a, b, winner: a | b | tie | both_bad}")
        turned = (row["b"], row["a"]) == names
        if str(row["item"]) not in known or not (turned or (row["a"], row["b"]) == names):
            unused += 1
            continue
        winner = {"a": "b", "b": "a"}.get(row["winner"], row["winner"]) if turned else row["winner"]
        if winner not in judge_report.VOTES:
            raise DataError(f"winner {winner!r}", where=f"{path}: row {number}", expected=", ".join(judge_report.VOTES))
        rows.append({"item": str(row["item"]), "winner": winner, "rater": str(row.get("rater") or "")})
    return Votes(tuple(rows), unused)


def measure(config: JudgeConfig, inputs: JudgeInputs) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what `--json` prints, a row an item). Raises what the engine raises: at a cap, what was answered is kept."""
    cases = _chosen(config, inputs.cases)
    template, scale = (PAIR, LETTERS) if config.mode == "pairwise" else (SINGLE, MARKS)
    firsts = [_sides(config, case) for case in cases]
    shown = cases if config.show_reference else [replace(case, reference="") for case in cases]
    asked = [
        [showing(case, side, template, config.criteria, config.max_new_tokens) for side in sides]
        for case, sides in zip(shown, firsts, strict=True)
    ]
    inputs.judge.chat([request for requests in asked for request in requests])
    opinions = [
        [_opinion(inputs.judge, request, side, scale) for request, side in zip(requests, sides, strict=True)]
        for requests, sides in zip(asked, firsts, strict=True)
    ]
    found = [judge_report.finding(case, each, config.mode) for case, each in zip(cases, opinions, strict=True)]
    facts: dict[str, Any] = {
        "mode": config.mode,
        "judge": inputs.judge.name,
        "a": inputs.names[0],
        "b": inputs.names[1],
    }
    facts |= {"orders": config.orders if config.mode == "pairwise" else None, "unpaired": inputs.unpaired}
    asked_of = {case.id for case in cases}
    votes = [row for row in inputs.votes.rows if row["item"] in asked_of]
    figures = judge_report.build(found, votes, config.mode)
    figures["votes"]["unused"] = inputs.votes.unused + len(inputs.votes.rows) - len(votes)
    rows = [one.to_json() | {"opinions": [asdict(o) for o in each]} for one, each in zip(found, opinions, strict=True)]
    return {**facts, **figures, "spent": inputs.judge.spent()}, rows


def _chosen(config: JudgeConfig, cases: Sequence[Case]) -> list[Case]:
    """A fixed share of the items where there is a limit, in the order that they came in."""
    by_hash = sorted(cases, key=lambda case: hashlib.sha256(case.id.encode()).digest())
    kept = {case.id for case in by_hash[: config.limit]}
    return [case for case in cases if case.id in kept]


def _sides(config: JudgeConfig, case: Case) -> list[Side]:
    """The order or orders that a pair is shown in (of a rubric: both answers); none where the two answers are alike."""
    if config.mode == "rubric":
        return ["a", "b"]
    if case.alike():
        return []
    one = first_side(case, config.seed)
    other: Side = "b" if one == "a" else "a"
    return [one, other][: config.orders]


def _opinion(judge: ChatEngine, request: ChatRequest, side: Side, scale: Mapping[str, float]) -> Opinion:
    reply = judge.stored(request)
    return read(reply, side, scale) if reply is not None else Opinion(side, None, why="failed")


def run(config: JudgeConfig, inputs: JudgeInputs, out: Path, parents: Mapping[str, Any]) -> Artifact:
    """Ask, and write judge.json (the figures) and opinions.jsonl (each item and each reply) as an artifact."""
    figures, rows = measure(config, inputs)
    with writing(out) as work:
        write_json(work / "judge.json", {"name": out.name, "parents": dict(parents), **figures})
        write_jsonl(work / "opinions.jsonl", rows)
        kept = {key: figures[key] for key in ("n", "judge", "a", "b", "verdict")}
        facts = {"config": config.model_dump(mode="json"), "parents": dict(parents), **kept}
        return seal(work, out, "judge", {**facts, "win_rate": figures["win_rate"]["value"]})
