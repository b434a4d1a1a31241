"""The verbs that look at errors and mend the data: diagnose, fix."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.core.errors import UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import JsonOption, NameOption, ProjectOption, end, open_project


def diagnose(
    eval_name: Annotated[
        str | None, typer.Argument(metavar="[EVAL]", help="The evaluation; the newest, where not given.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="An earlier evaluation, or a file, to compare with.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="A file of answers; needs no project.")
    ] = None,
    training: Annotated[Path | None, typer.Option("--training", help="With a file: what was trained on.")] = None,
    name: NameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """What is wrong with the answers: twelve kinds of errors, before and after, with causes and proposals."""
    from tunesmith import diagnosing
    from tunesmith.diagnose.figures import table

    if predictions:
        if clash := [given for given in (eval_name, name, project) if given]:
            raise UsageError(f"{clash[0]} with --predictions", expected="a file alone: no project is read")
        facts = diagnosing.predictions(predictions, Path(against) if against else None, training)
        say(table(facts["categories"], facts["not_run"], ("base" if against else "", "tuned" if against else "rate")))
        end(as_json, facts, "")
        return
    if training:
        raise UsageError("--training without --predictions", expected="a project knows what it trained on")
    done = diagnosing.diagnose(open_project(project), name, eval_name=eval_name, against=against)
    say(diagnosing.told(done))
    facts = diagnosing.summary(done)
    say(f"{facts['proposals']} proposals; report: {done.path / 'report.md'}")
    end(as_json, facts, f"tunesmith fix {done.name}" if facts["proposals"] else "tunesmith show")


def fix(
    errors_name: Annotated[
        str | None, typer.Argument(metavar="[ERRORS]", help="The diagnosis; the newest, where not given.")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option("--accept", help="all, a category, or a proposal's id; several times.")
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="Then train, evaluate, and compare errors.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before training.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mend the training rows by a diagnosis's proposals, each accepted by a person; held-out rows stay."""
    from tunesmith import diagnosing
    from tunesmith.diagnose.review import terminal

    if yes and not train:
        raise UsageError("--yes without --train", expected="nothing else is asked")
    found = open_project(project)
    errors = found.open("errors", errors_name)
    chosen = diagnosing.choose(errors, accept or [], terminal)
    if not chosen:
        say("nothing was accepted, and nothing written")
        end(as_json, {"errors": errors.name, "accepted": 0}, f"tunesmith fix {errors.name}")
        return
    raw, set_ = diagnosing.fix(found, errors, chosen)
    rows = diagnosing.held_out(found.open("set", errors.facts["parents"]["set"]["name"]), set_)
    diagnosing.say_plan(chosen, raw, set_, rows)
    facts: dict[str, Any] = {"errors": errors.name, "accepted": len(chosen), "actions": raw.facts["actions"]}
    facts |= {"raw": raw.name, "set": set_.name, "held_out": rows}
    if train and (yes or _confirmed(f"train on {set_.name}, and evaluate?")):
        run, done, after = diagnosing.again(found, errors, set_)
        say(diagnosing.told(after))
        facts |= {"run": run.name, "eval": done.name, "after": after.name}
        facts |= {"categories": diagnosing.summary(after)["categories"]}
        end(as_json, facts, "tunesmith fix")
        return
    end(as_json, facts, f"tunesmith train --set {set_.name}")


def _confirmed(question: str) -> bool:
    """Asks on stderr; an answer that is not there is a no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
