"""The verbs that compare: compare, scout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.core.errors import UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import (
    JsonOption,
    NameOption,
    ProjectOption,
    RunOption,
    SetOption,
    end,
    open_project,
    project_at,
)


def compare(
    run_name: RunOption = None,
    set_name: SetOption = None,
    model: Annotated[str | None, typer.Option("--model", help="An endpoint's model, as further arms.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="The endpoint, ending in /v1.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Answer only so many rows.")] = None,
    price_per_hour: Annotated[float | None, typer.Option("--price-per-hour", help="What this machine costs.")] = None,
    scores: Annotated[
        tuple[Path, Path] | None, typer.Option("--scores", metavar="A.jsonl B.jsonl", help="Scores from elsewhere.")
    ] = None,
    name: NameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prompting, retrieval and tuning on the same held-out rows: quality, time, tokens, cost, and a verdict."""
    if scores:
        if any(x is not None for x in (run_name, set_name, model, base_url, limit, price_per_hour, name, project)):
            raise UsageError("--scores with another flag", expected="two files of scores, and no more")
        from tunesmith.comparing_scores import scores_door

        told, text = scores_door(*scores)
        say(text)
        end(as_json, told, "")
        return
    from tunesmith import comparing
    from tunesmith.compare.report import table
    from tunesmith.core.jsonl import read_json

    flags = {"model": model, "base_url": base_url, "limit": limit, "price_per_hour": price_per_hour}
    done = comparing.compare(open_project(project), name, run_name=run_name, set_name=set_name, **flags)
    facts = comparing.summary(done)
    say(table(read_json(done.path / "report.json")))
    say(f"verdict: {facts['verdict']}")
    for reason in facts["reasons"]:
        say(f"  {reason}")
    say(f"report: {facts['report']}")
    end(as_json, facts, "tunesmith show")


def scout(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Rows with a task, or folders of a file a task.")
    ],
    model: Annotated[str | None, typer.Option("--model", help="The endpoint's name of the model.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="The endpoint, ending in /v1.")] = None,
    local: Annotated[str | None, typer.Option("--local", help="A model directory, in place of an endpoint.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """At which of the candidate tasks does a large model do about OK? Those are worth tuning for."""
    from tunesmith import scouting

    facts = scouting.scout(files, project_at(project), local, model=model, base_url=base_url)
    say(scouting.table(facts))
    pick = facts["pick"]
    say(f"first to try: {pick}" if pick else "none looks about OK: other tasks, or clearer examples")
    end(as_json, facts, "tunesmith new DIR --data FILE" if pick else "")
