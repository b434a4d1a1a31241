"""The verb test: a suite of assertions on base and tuned, or on any file of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.core.errors import UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import JsonOption, NameOption, ProjectOption, RunOption, end, open_project


def test(
    suite: Annotated[
        Path | None, typer.Argument(metavar="[SUITE]", help="A .toml or .jsonl file; the project's tests.toml.")
    ] = None,
    run_name: RunOption = None,
    no_base: Annotated[bool, typer.Option("--no-base", help="Ask the tuned model alone: in half the time.")] = False,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Answers from a file of {id, prompt, output}; no project.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Of --predictions: another model's answers to compare with.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here, for a CI server.")] = None,
    name: NameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check what answers must say and must not; exit 1 where too few rows pass, or a check could not be run."""
    from tunesmith import testing
    from tunesmith.evaluate import junit as xml
    from tunesmith.evaluate.suite_run import table

    if predictions is None:
        if against:
            raise UsageError("--against without --predictions", expected="two files of predictions")
        made = testing.on_run(open_project(project), suite, name, run_name, not no_base)
        facts = testing.report(made)
    else:
        others = {"--run": run_name, "--no-base": no_base or None, "--name": name, "--project": project}
        if clash := [flag for flag, value in others.items() if value is not None]:
            raise UsageError(f"{clash[0]} with --predictions", expected="a file in place of a run's models")
        facts = testing.on_predictions(suite or Path(testing.SUITE), predictions, against)
    say(table(facts))
    if junit:
        xml.write(facts, facts["suite"], junit)
    said = "passed" if facts["passed"] else f"{facts['failed']} of {facts['assertions']} assertions failed"
    say(said)
    end(as_json, facts, "" if predictions else "tunesmith show test")
    if not facts["passed"]:
        raise typer.Exit(1)
