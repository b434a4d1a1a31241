"""The verbs of the data: collect, generate, review, prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tunesmith.core.errors import UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import JsonOption, MapOption, ProjectOption, end, lines, open_project, pairs, some


def collect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Rows, FAQs, mail, exports, text; hf:ID.")],
    mapping: MapOption = None,
    documents: Annotated[
        Literal["line", "paragraph", "file"] | None, typer.Option("--documents", help="What a document of a text is.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read files as they are into canonical rows; what cannot be used is kept apart, with its line and the reason."""
    from tunesmith import loop

    raw = loop.collect(open_project(project), files, pairs(mapping or []), documents=documents)
    facts = {"id": raw.name, "path": str(raw.path), **some(raw.facts, "rows_in kept rejected")}
    end(as_json, facts, "tunesmith prepare")


def generate(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="Documents to make rows from.")
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="self-instruct, questions, paraphrase, ...")] = None,
    target: Annotated[int | None, typer.Option("--target", help="Accepted rows to deliver.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="The endpoint's name of the model.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="The endpoint, ending in /v1.")] = None,
    local: Annotated[bool, typer.Option("--local", help="The project's base writes, in place of an endpoint.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would ask and cost; send nothing.")] = False,
    review: Annotated[bool, typer.Option("--review", help="Make a draft, for people to accept.")] = False,
    max_requests: Annotated[int | None, typer.Option("--max-requests", help="Stop before more than this.")] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="Stop before this is passed.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """New rows from rows and documents, by an OpenAI-compatible endpoint or a local model, up to an accepted target."""
    from tunesmith import growing

    flags = {"recipe": recipe, "target": target, "model": model, "base_url": base_url, "max_cost": max_cost}
    flags |= {"review": review or None, "max_requests": max_requests}
    if dry_run:
        if local:
            raise UsageError("--dry-run with --local", expected="an endpoint: a local model costs nothing")
        facts = growing.forecast(open_project(project), files or [], **flags)
        say(lines(facts))
        end(as_json, facts, "tunesmith generate")
        return
    made = growing.generate(open_project(project), files or [], local, **flags)
    names = "recipe model requested rows_in kept rejected requests_used spent"
    facts = {"id": made.name, "path": str(made.path), **some(made.facts, names)}
    say(lines(facts))
    end(as_json, facts, "tunesmith review" if made.kind == "draft" else "tunesmith prepare")


def review(
    name: Annotated[
        str | None, typer.Argument(metavar="[DRAFT]", help="The draft; the newest, where not given.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Close it with rows still waiting.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accept, edit or reject the rows of a draft at the terminal; a review goes on where it was."""
    from tunesmith import growing

    done = growing.review(open_project(project), name, partial=partial, ask=not partial)
    facts = {"id": done.name, "path": str(done.path), **some(done.facts, "kept rejected review")} if done else {}
    end(as_json, facts, "tunesmith prepare" if done else "tunesmith review")


def prepare(
    reject: Annotated[
        list[str] | None, typer.Option("--reject", help="Leave out the rows of this check; several times.")
    ] = None,
    benchmarks: Annotated[
        list[Path] | None, typer.Option("--benchmarks", help="Look for the questions of this file; several times.")
    ] = None,
    difficulty: Annotated[
        str | None, typer.Option("--difficulty", help="A model that says how likely each answer is: base, a run, ...")
    ] = None,
    judge: Annotated[
        int | None, typer.Option("--judge", help="Have so many answers scored by the model under [generate].")
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="For corpora that do not fit into memory.")] = False,
    runner: Annotated[
        Literal["local", "slurm", "ray"] | None, typer.Option("--runner", help="Who works on the shards.")
    ] = None,
    shard_rows: Annotated[int | None, typer.Option("--shard-rows", min=1, help="Rows of a shard.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Clean, take out duplicates, and split by groups, so that nothing in the test was seen in training."""
    from tunesmith import loop
    from tunesmith.prepare.sets import receipt

    if not shards and (runner or shard_rows):
        raise UsageError("--runner and --shard-rows are for --shards", fix="tunesmith prepare --shards ...")
    files = [str(file.resolve()) for file in benchmarks or ()] or None  # of the shell's folder, not of the project's
    flags = {"reject": reject, "benchmarks": files, "difficulty": difficulty, "judge": judge}
    by = (runner or "local") if shards else None
    set_ = loop.prepare(open_project(project), runner=by, shard_rows=shard_rows, **flags)
    facts = receipt(set_)
    told = {key: "NOT RUN" if value is None else value for key, value in facts.items()}
    say(lines({key: value for key, value in told.items() if key not in ("difficulty", "judge")}))  # they have a note
    say(f"report: {set_.path / 'report.md'}")
    end(as_json, facts, "tunesmith train")
