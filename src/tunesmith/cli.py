"""The command line: a verb a stage. People read stderr; with --json the last line on stdout is one object."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tunesmith import __version__
from tunesmith.core.errors import Interrupted, ResourceError, TunesmithError, UsageError

app = typer.Typer(
    name="tunesmith",
    help="Your own examples to a better small language model, with numbers that say whether it is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ProjectOption = Annotated[Path | None, typer.Option("--project", help="The project folder; found upwards from here.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Its name; the next number, where not given.")]
SetOption = Annotated[str | None, typer.Option("--set", help="The set's id; the newest, where not given.")]
RunOption = Annotated[str | None, typer.Option("--run", help="The run's name; the newest, where not given.")]
Dtype = Literal["auto", "float32", "bfloat16"]


def main() -> None:
    """Run a verb; a user's mistake is a message and an exit code, never a traceback."""
    try:
        app()
    except TunesmithError as error:
        _fail(error)
    except SystemExit as end:
        if end.code == Interrupted.exit_code:  # what typer makes of Ctrl-C, without a word
            _fail(Interrupted("stopped", fix="tunesmith show, which lists what is unfinished"))
        raise
    except (OSError, MemoryError) as error:
        _fail(_of_system(error))
    except RuntimeError as error:
        if not re.search("out of memory|can't allocate memory", str(error)):  # torch's words on a GPU and on a CPU
            raise
        _fail(_of_system(MemoryError(str(error).splitlines()[0])))


def _of_system(error: OSError | MemoryError) -> TunesmithError:
    """What the operating system refused: no room (5), or a place that cannot be read or written (2)."""
    from tunesmith.core.artifact import FULL

    if isinstance(error, MemoryError):
        less = "lower micro_batch_tokens or max_length in tunesmith.toml, take --method lora, or a smaller base"
        return ResourceError(f"memory ran out{f': {error}' if str(error) else ''}", fix=less)
    what = FULL.get(error.errno or 0) or error.strerror or str(error)
    where = str(error.filename or "")
    if error.errno in FULL or error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return ResourceError(what, where=where, fix="free some space and run the same command again")
    return UsageError(what, where=where, fix="check the path and its permissions")


def _fail(error: TunesmithError) -> None:
    error.fix = _in_project(error.fix)
    say(f"error: {error.render()}")
    if "--json" in sys.argv:
        facts = {"what": error.what, "where": error.where, "expected": error.expected, "fix": error.fix}
        print(json.dumps({"error": facts, "exit_code": error.exit_code}))
    sys.exit(error.exit_code)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _project(folder: Path | None) -> Any:
    from tunesmith.core.project import find_project
    from tunesmith.loop import open_project

    return open_project(folder or find_project().path)


def _end(as_json: bool, facts: dict[str, Any], following: str) -> None:
    """Every verb ends alike: its object for programs, the next command for people."""
    from tunesmith.core.runlog import finite

    if following:
        say(f"next: {_in_project(following)}")
    if as_json:
        print(json.dumps(finite(facts), allow_nan=False))


def _in_project(command: str) -> str:
    """A command to type next: with --project where this one was given it."""
    words = sys.argv[1:]
    given = [value for word, value in zip(words, [*words[1:], ""], strict=True) if word == "--project"]
    given += [word.removeprefix("--project=") for word in words if word.startswith("--project=")]
    verbs = "collect|generate|review|prepare|pretrain(?! --embedded)|train|evaluate|show"
    if not given:
        return command
    flag = f" --project {shlex.quote(given[-1])}"
    return re.sub(rf"\btunesmith ({verbs})\b", lambda verb: verb[0] + flag, command)


def _pairs(values: list[str]) -> dict[str, str]:
    """--map prompt=question --map completion=answer as a dict."""
    pairs = [(role, column) for role, _, column in (value.partition("=") for value in values)]
    for value, (role, column) in zip(values, pairs, strict=True):
        if not role or not column:
            raise UsageError(f"--map {value}", expected="ROLE=COLUMN, such as --map prompt=question")
        if [other for other, _ in pairs].count(role) > 1:
            raise UsageError(f"--map {role}=... is given twice", expected="one column a role")
    return dict(pairs)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where the demo's project goes.")] = Path("tunesmith-demo"),
    as_json: JsonOption = False,
) -> None:
    """The whole loop on data that every Python carries: from zero to a tuned, measured model, in minutes on a CPU."""
    from tunesmith.demo import demo as run

    _end(as_json, run(folder), f"cd {folder} && tunesmith show")


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder.")],
    data: Annotated[list[Path] | None, typer.Option("--data", help="Files to collect at once.")] = None,
    base: Annotated[str, typer.Option("--base", help="default, a model directory, or a hub id.")] = "default",
    mapping: Annotated[list[str] | None, typer.Option("--map", help="ROLE=COLUMN, where detection asks.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project: a folder with tunesmith.toml, every setting written out with a comment."""
    from tunesmith import loop

    pairs = _pairs(mapping or [])
    if pairs and not data:
        raise UsageError("--map without --data", expected="the files whose columns it names")
    loop.check_files(data or [])
    fresh = not folder.exists()
    project = loop.new(folder, base)
    try:
        if data:
            loop.collect(project, data, pairs)
    except (TunesmithError, OSError):  # leave nothing, so that the same command can be run again with what was missing
        if fresh:
            shutil.rmtree(folder)
        else:
            (folder / "tunesmith.toml").unlink()
        raise
    say(f"made {folder}/tunesmith.toml")
    _end(as_json, {"project": str(project.path)}, f"cd {folder} && tunesmith {'prepare' if data else 'collect FILE'}")


@app.command()
def collect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Rows, FAQs, mail, exports, text; hf:ID.")],
    mapping: Annotated[list[str] | None, typer.Option("--map", help="ROLE=COLUMN, such as prompt=question.")] = None,
    documents: Annotated[
        Literal["line", "paragraph", "file"] | None, typer.Option("--documents", help="What a document of a text is.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read files as they are into canonical rows; what cannot be used is kept apart, with its line and the reason."""
    from tunesmith import loop

    raw = loop.collect(_project(project), files, _pairs(mapping or []), documents=documents)
    facts = {"id": raw.name, "path": str(raw.path), **_some(raw.facts, "rows_in kept rejected")}
    _end(as_json, facts, "tunesmith prepare")


@app.command()
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
        facts = growing.forecast(_project(project), files or [], **flags)
        say(_lines(facts))
        _end(as_json, facts, "tunesmith generate")
        return
    made = growing.generate(_project(project), files or [], local, **flags)
    names = "recipe model requested rows_in kept rejected requests_used spent"
    facts = {"id": made.name, "path": str(made.path), **_some(made.facts, names)}
    say(_lines(facts))
    _end(as_json, facts, "tunesmith review" if made.kind == "draft" else "tunesmith prepare")


@app.command()
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

    done = growing.review(_project(project), name, partial=partial, ask=not partial)
    facts = {"id": done.name, "path": str(done.path), **_some(done.facts, "kept rejected review")} if done else {}
    _end(as_json, facts, "tunesmith prepare" if done else "tunesmith review")


@app.command()
def prepare(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Clean, take out duplicates, and split by groups, so that nothing in the test was seen in training."""
    from tunesmith import loop
    from tunesmith.prepare.stage import receipt

    set_ = loop.prepare(_project(project))
    facts = receipt(set_)
    say(_lines(facts))
    say(f"report: {set_.path / 'report.md'}")
    _end(as_json, facts, "tunesmith train")


@app.command()
def pretrain(
    name: NameOption = None,
    set_name: SetOption = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Optimizer steps, at most.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Start weights and order.")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Make the embedded base; needs no project.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """A base from zero: a BPE tokenizer and a small Llama on the raw text of a set."""
    if embedded:
        others = {"--name": name, "--set": set_name, "--max-steps": max_steps, "--seed": seed, "--project": project}
        if clash := [flag for flag, value in others.items() if value is not None]:
            raise UsageError(f"{clash[0]} with --embedded", expected="--embedded alone: that base is always the same")
        from tunesmith.embedded import embedded_run

        run = embedded_run()
    else:
        from tunesmith import loop

        run = loop.pretrain(_project(project), name, set_name, max_steps=max_steps, seed=seed)
    names = "method steps train_loss val_loss val_bpb tokens tokens_per_second total_parameters seconds peak_memory_gb"
    facts = {"run": run.name, "path": str(run.path), **_some(run.facts, names)}
    say(_lines(facts))
    _end(as_json, facts, f"tunesmith train --base {'default' if embedded else run.name}")


@app.command()
def train(
    name: NameOption = None,
    method: Annotated[Literal["full", "lora"] | None, typer.Option("--method", help="Every weight, or LoRA.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="default, a directory, a hub id, or a run.")] = None,
    set_name: SetOption = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Optimizer steps.")] = None,
    num_epochs: Annotated[int | None, typer.Option("--num-epochs", help="Passes over the data.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="The highest one.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples a step.")] = None,
    save_every: Annotated[int | None, typer.Option("--save-every", help="Steps between checkpoints.")] = None,
    eval_every: Annotated[int | None, typer.Option("--eval-every", help="Steps between validations.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Order of the data, LoRA's start, dropout.")] = None,
    dtype: Annotated[Dtype | None, typer.Option("--dtype", help="What is computed in.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune the base on a set. Ctrl-C saves; --resume goes on to the same result."""
    from tunesmith import loop

    flags = {"method": method, "max_steps": max_steps, "num_epochs": num_epochs, "learning_rate": learning_rate}
    more = {"batch_size": batch_size, "save_every": save_every, "eval_every": eval_every, "seed": seed, "dtype": dtype}
    run = loop.train(_project(project), name, base=base, set_name=set_name, resume=resume, **flags, **more)
    from tunesmith.train.stage import summary  # seconds to import: not before what can be wrong without it

    facts = summary(run)
    say(_lines(facts))
    _end(as_json, facts, "tunesmith evaluate")


@app.command()
def evaluate(
    run_name: RunOption = None,
    set_name: SetOption = None,
    name: NameOption = None,
    split: Annotated[Literal["test", "valid"] | None, typer.Option("--split", help="The held-out rows.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Answer only so many rows.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Base and tuned on the same held-out rows: scores with intervals, errors before and after, a report."""
    from tunesmith import loop
    from tunesmith.core.jsonl import read_json
    from tunesmith.evaluate.report import table
    from tunesmith.evaluate.stage import summary

    done = loop.evaluate(_project(project), name, run_name=run_name, set_name=set_name, split=split, limit=limit)
    say(table(read_json(done.path / "report.json")))
    say(f"report: {done.path / 'report.html'}")
    _end(as_json, summary(done), "tunesmith show")


@app.command()
def show(
    kind: Annotated[str | None, typer.Argument(help="raw, set, run, eval or diff; everything, if not given.")] = None,
    name: Annotated[str | None, typer.Argument(help="The artifact; the newest, where not given.")] = None,
    other: Annotated[str | None, typer.Argument(help="Of diff: the second set.")] = None,
    row: Annotated[int | None, typer.Option("--row", help="A set's training row, rendered, its mask coloured.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the project has, and what an artifact says of itself."""
    from tunesmith import views

    found = _project(project)
    if other is not None and (kind != "diff" or row is not None):
        raise UsageError(f"{other} is one word too many", expected="two sets after diff, as in: show diff A B")
    if kind == "diff":
        facts, text = views.diff_view(found, name, other)
    elif row is not None and kind in (None, "set"):
        facts, text = views.row_view(found, name, row, colour=sys.stderr.isatty())
    elif row is not None:
        raise UsageError(f"--row of a {kind}", expected="a set's row", fix=f"tunesmith show set --row {row}")
    elif kind is None:
        facts, text = views.overview(found)
    else:
        facts, text = views.artifact_view(found, kind, name)
    say(text)
    _end(as_json, facts, "")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What this machine and installation can do, and what is wrong with them."""
    from tunesmith import views

    facts, problems = views.doctor()
    say(_lines(facts))
    for problem in problems:
        say(f"problem: {problem}")
    _end(as_json, {**facts, "problems": problems}, "tunesmith demo" if not problems else "")
    if problems:
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _some(facts: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: facts[name] for name in names.split() if name in facts}


def _lines(facts: dict[str, Any]) -> str:
    """Aligned key and value lines for people."""
    width = max(map(len, facts))
    shown = {k: f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else f"{v}" for k, v in facts.items()}
    return "\n".join(f"  {key:<{width}}  {value}" for key, value in shown.items())
