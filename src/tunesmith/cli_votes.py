"""The verbs of people's votes: vote and rank."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.core.errors import UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import JsonOption, ProjectOption, end, lines, open_project

EvalOption = Annotated[str | None, typer.Option("--eval", help="The evaluation.")]


def vote(
    eval_name: EvalOption = None,
    arms: Annotated[str | None, typer.Option("--arms", help="Two of its arms; base,tuned, where not given.")] = None,
    rater: Annotated[str, typer.Option("--rater", help="Your name, where several people vote.")] = "me",
    save: Annotated[Path | None, typer.Option("--save", help="Ask nothing; write the votes to this file.")] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Ask nothing; write preference rows to this file.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which of two answers is better? Blind pairs, one key each; Ctrl-C keeps every vote."""
    if save and export:
        raise UsageError("--save with --export", expected="one of the two")
    from tunesmith import voting

    found = open_project(project)
    if save:
        facts, following = voting.save(found, save, eval_name), f"tunesmith judge --votes {save}"
    elif export:
        facts = voting.export(found, export, eval_name)
        following = voting.collect_command(found, export)
    else:
        facts, following = voting.vote(found, eval_name, arms=arms, rater=rater), "tunesmith rank"
    say(lines(facts))
    end(as_json, facts, following)


def rank(
    file: Annotated[Path | None, typer.Argument(metavar="[VOTES]", help="Votes; the project's own, if none.")] = None,
    eval_name: EvalOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """The models by the votes on them, with intervals, and how far the voters agree."""
    from tunesmith import voting

    if file is not None and (eval_name or project):
        raise UsageError("a file of votes with --eval or --project", expected="one or the other")
    facts, text = voting.rank_file(file) if file else voting.rank_project(open_project(project), eval_name)
    say(text)
    end(as_json, facts, "" if file else "tunesmith vote --export preferences.jsonl")
