"""The verbs that hold a model against others' yardsticks: benchmark and judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tunesmith.core.errors import UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import JsonOption, NameOption, ProjectOption, RunOption, end, open_project, project_at


def benchmark(
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", help="arc_challenge,hellaswag,...; the leaderboard's four, where not given."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="The folder of their files, at any depth; hub to fetch them.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="A model directory or hub id; needs no project.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="With --model: what it was tuned from.")] = None,
    run_name: RunOption = None,
    shots: Annotated[int | None, typer.Option("--shots", help="Solved questions before each.")] = None,
    fewshot: Annotated[
        Literal["fixed", "per-item"] | None, typer.Option("--fewshot", help="The same shots for all, or drawn anew.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Ask only the first so many of each task.")] = None,
    name: NameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """ARC, HellaSwag, MMLU, TruthfulQA from plain files, as lm-eval scores them; warns of what tuning has forgotten."""
    from tunesmith import benchmarking
    from tunesmith.core.jsonl import read_json
    from tunesmith.evaluate.benchmark_table import table, warnings

    flags: dict[str, Any] = {"tasks": tuple(tasks.split(",")) if tasks else None, "shots": shots, "fewshot": fewshot}
    flags |= {"limit": limit, "data": str(Path(data).resolve()) if data and data != benchmarking.HUB else data}
    if model is not None:
        if clash := [flag for flag, value in {"--run": run_name, "--name": name}.items() if value is not None]:
            raise UsageError(f"{clash[0]} with --model", expected="a model directory, or a project's run")
        facts = benchmarking.benchmark_models(model, base, **flags)
    else:
        if base is not None:
            raise UsageError("--base without --model", expected="a run is held against the base it was tuned from")
        done = benchmarking.benchmark(open_project(project), name, run_name=run_name, **flags)
        facts = {**read_json(done.path / "benchmark.json"), "path": str(done.path)}
    say(table(facts))
    for warning in warnings(facts):
        say(f"warning: {warning}")
    end(as_json, facts, "tunesmith evaluate" if model is None else "")


def judge(
    a: Annotated[Path | None, typer.Option("--a", help="Answers of one model: rows {id, prompt, output}.")] = None,
    b: Annotated[Path | None, typer.Option("--b", help="Answers of the other, to the same ids.")] = None,
    eval_name: Annotated[
        str | None, typer.Option("--eval", help="The evaluation whose answers are judged; the newest, where not given.")
    ] = None,
    mode: Annotated[
        Literal["pairwise", "rubric"] | None, typer.Option("--mode", help="Which is better, or a mark for each.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The judge, as the endpoint knows it.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="The endpoint, ending in /v1.")] = None,
    local: Annotated[str | None, typer.Option("--local", help="A model directory or run that judges instead.")] = None,
    votes: Annotated[Path | None, typer.Option("--votes", help="People's votes, to hold the judge against.")] = None,
    orders: Annotated[int | None, typer.Option("--orders", help="2: both ways round; 1: one way, drawn.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Judge only so many items.")] = None,
    max_requests: Annotated[int | None, typer.Option("--max-requests", help="Stop before more than this.")] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="Stop before this is passed.")] = None,
    name: NameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """A model judges two arms' answers in both orders; printed beside it: whether that judge can be relied on."""
    from tunesmith import judging
    from tunesmith.evaluate.judge_report import table

    flags: dict[str, Any] = {"mode": mode, "model": model, "base_url": base_url, "local": local, "orders": orders}
    flags |= {"limit": limit, "max_requests": max_requests, "max_cost": max_cost}
    sources = judging.Sources(a, b, eval_name, votes)
    home = open_project(project) if a is None else project_at(project)
    facts = judging.judge(home, sources, name, **flags)
    say(table(facts))
    for warning in facts["warnings"]:
        say(f"warning: {warning}")
    end(as_json, facts, "tunesmith vote" if not facts["votes"]["n"] else "tunesmith show")
