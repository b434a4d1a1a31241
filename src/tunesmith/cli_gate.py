"""The verb gate: ship (0), do not ship (1), cannot tell (10)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.core.errors import UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import JsonOption, NameOption, ProjectOption, RunOption, end, open_project, project_at

FOLLOWING = {
    "ship": "tunesmith show gate",
    "do not ship": "tunesmith diagnose",
    "cannot tell": "tunesmith collect FILE",
}


def gate(
    run_name: RunOption = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", help="Decide again from an evidence file; no model is loaded.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="How often is it wrong, on evidence of this size?")
    ] = False,
    name: NameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ship the tuned model or not: one decision from tests, the paired comparison, the forgetting guard and parity."""
    from tunesmith import gating
    from tunesmith.core.jsonl import read_json

    if replay and (simulate or name or run_name):
        raise UsageError("--replay with another flag", expected="one evidence file, and no more")
    if simulate:
        from tunesmith.evaluate.gate_odds import table

        facts = gating.simulate(project_at(project), run_name)
        say(table(facts["odds"]))
        say(f"false alarms on two copies of one model: {facts['false_alarms']:.1%} of {facts['runs']:,} simulated")
        end(as_json, facts, "tunesmith gate")
        return
    if replay:
        found = project_at(project)
        facts = {"path": str(replay), "checked": found is not None, **gating.replay(replay, found)}
        say("base, data and run are those of the evidence" if found else "hashes NOT RUN: there is no project here")
    else:
        made = gating.gate(open_project(project), name, run_name)
        kept = read_json(made.path / gating.FILE)
        names = ("decision", "exit_code", "better", "reasons", "legs", "rows_needed")
        facts = {"path": str(made.path / gating.FILE), **{key: kept[key] for key in names}}
    for reason in facts["reasons"]:
        say(f"  {reason}")
    say(f"decision: {facts['decision']}")
    unmeasured = any(leg["part"] == "quality" and leg["state"] == "NOT RUN" for leg in facts["legs"])
    end(as_json, facts, "tunesmith evaluate" if unmeasured else FOLLOWING[facts["decision"]])
    raise typer.Exit(facts["exit_code"])
