"""The command line: a verb a stage. People read stderr; with --json the last line on stdout is one object."""

from __future__ import annotations

import errno
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tunesmith import __version__, cli_benchmark, cli_compare, cli_data, cli_diagnose, cli_gate, cli_test, cli_votes
from tunesmith.core.errors import Interrupted, ResourceError, TunesmithError, UsageError
from tunesmith.core.runlog import say
from tunesmith.speaking import (
    JsonOption,
    MapOption,
    NameOption,
    ProjectOption,
    RunOption,
    SetOption,
    end,
    fail,
    lines,
    open_project,
    pairs,
    some,
)

app = typer.Typer(
    name="tunesmith",
    help="Your own examples to a better small language model, with numbers that say whether it is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half of the time of --help would be rich's
)

Dtype = Literal["auto", "float32", "bfloat16"]
Choice = Literal["auto", "on", "off"]


def main() -> None:
    """Run a verb; a user's mistake is a message and an exit code, never a traceback."""
    try:
        app()
    except TunesmithError as error:
        fail(error)
    except SystemExit as leaving:
        if leaving.code == Interrupted.exit_code:  # what typer makes of Ctrl-C, without a word
            fail(Interrupted("stopped", fix="tunesmith show, which lists what is unfinished"))
        raise
    except (OSError, MemoryError) as error:
        fail(_of_system(error))
    except RuntimeError as error:
        if not re.search("out of memory|can't allocate memory", str(error)):  # torch's words on a GPU and on a CPU
            raise
        fail(_of_system(MemoryError(str(error).splitlines()[0])))


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


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where the demo's project goes.")] = Path("tunesmith-demo"),
    as_json: JsonOption = False,
) -> None:
    """The whole loop on data that every Python carries: from zero to a tuned, measured model, in minutes on a CPU."""
    from tunesmith.demo import demo as run

    end(as_json, run(folder), f"cd {folder} && tunesmith show")


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder.")],
    data: Annotated[list[Path] | None, typer.Option("--data", help="Files to collect at once.")] = None,
    base: Annotated[str, typer.Option("--base", help="default, a model directory, or a hub id.")] = "default",
    mapping: MapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project: a folder with tunesmith.toml, every setting written out with a comment."""
    from tunesmith import loop

    columns = pairs(mapping or [])
    if columns and not data:
        raise UsageError("--map without --data", expected="the files whose columns it names")
    loop.check_files(data or [])
    fresh = not folder.exists()
    project = loop.new(folder, base)
    try:
        if data:
            loop.collect(project, data, columns)
    except (TunesmithError, OSError) as error:  # leave nothing, so that the command can be run again
        if fresh:
            shutil.rmtree(folder)
        else:
            (folder / "tunesmith.toml").unlink()
        if isinstance(error, TunesmithError):  # there is no project to collect into
            error.fix = error.fix.replace("tunesmith collect ", f"tunesmith new {shlex.quote(str(folder))} --data ")
        raise
    say(f"made {folder}/tunesmith.toml")
    end(as_json, {"project": str(project.path)}, f"cd {folder} && tunesmith {'prepare' if data else 'collect FILE'}")


for _verb in (cli_data.collect, cli_data.generate, cli_data.review, cli_data.prepare):
    app.command()(_verb)


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

        run = loop.pretrain(open_project(project), name, set_name, max_steps=max_steps, seed=seed)
    names = "method steps train_loss val_loss val_bpb tokens tokens_per_second total_parameters seconds peak_memory_gb"
    facts = {"run": run.name, "path": str(run.path), **some(run.facts, names)}
    say(lines(facts))
    end(as_json, facts, f"tunesmith train --base {'default' if embedded else run.name}")


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
    max_length: Annotated[int | None, typer.Option("--max-length", help="The longest example in tokens.")] = None,
    checkpointing: Annotated[
        Choice | None, typer.Option("--gradient-checkpointing", help="Activations made again, for memory.")
    ] = None,
    save_every: Annotated[int | None, typer.Option("--save-every", help="Steps between checkpoints.")] = None,
    eval_every: Annotated[int | None, typer.Option("--eval-every", help="Steps between validations.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Order of the data, LoRA's start, dropout.")] = None,
    dtype: Annotated[Dtype | None, typer.Option("--dtype", help="What is computed in.")] = None,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Choose the learning rate by short runs first.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune the base on a set. Ctrl-C saves; --resume goes on to the same result."""
    from tunesmith import loop

    flags = {"method": method, "max_steps": max_steps, "num_epochs": num_epochs, "learning_rate": learning_rate}
    more: dict[str, object] = {
        "batch_size": batch_size,
        "save_every": save_every,
        "eval_every": eval_every,
        "seed": seed,
        "dtype": dtype,
    }
    more |= {"max_length": max_length, "gradient_checkpointing": checkpointing}
    more |= {"find_lr": (find_lr and not resume) or None}  # a resumed run has its rate
    run = loop.train(open_project(project), name, base=base, set_name=set_name, resume=resume, **flags, **more)
    from tunesmith.train.stage import summary  # seconds to import: not before what can be wrong without it

    facts = summary(run)
    say(lines(facts))
    end(as_json, facts, "tunesmith evaluate")


@app.command()
def export(
    run_name: RunOption = None,
    name: NameOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """A LoRA run merged into its base: a plain model directory, and how much the rounding changed."""
    from tunesmith import loop

    run = loop.export(open_project(project), name, run_name=run_name)
    facts = {"run": run.name, "path": str(run.path / "model"), **run.facts["merge"]}
    say(lines(facts))
    end(as_json, facts, f"tunesmith evaluate --run {run.name}")


@app.command()
def evaluate(
    run_name: RunOption = None,
    set_name: SetOption = None,
    name: NameOption = None,
    split: Annotated[Literal["test", "valid"] | None, typer.Option("--split", help="The held-out rows.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Answer only so many rows.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="Score this, in place of the file's; several times.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Base and tuned on the same held-out rows: scores with intervals, errors before and after, a report."""
    from tunesmith import loop
    from tunesmith.core.jsonl import read_json
    from tunesmith.evaluate.report import table
    from tunesmith.evaluate.stage import summary

    flags: dict[str, Any] = {"split": split, "limit": limit, "metrics": metrics}
    done = loop.evaluate(open_project(project), name, run_name=run_name, set_name=set_name, **flags)
    say(table(read_json(done.path / "report.json")))
    say(f"report: {done.path / 'report.html'}")
    end(as_json, summary(done), "tunesmith show")


app.command()(cli_test.test)
app.command()(cli_benchmark.benchmark)
app.command()(cli_benchmark.judge)
app.command()(cli_votes.vote)
app.command()(cli_votes.rank)
app.command()(cli_compare.compare)
app.command()(cli_compare.scout)
app.command()(cli_diagnose.diagnose)
app.command()(cli_diagnose.fix)
app.command()(cli_gate.gate)


@app.command()
def show(
    kind: Annotated[str | None, typer.Argument(help="raw, set, run, eval or diff; everything, if not given.")] = None,
    name: Annotated[str | None, typer.Argument(help="The artifact; the newest, where not given.")] = None,
    other: Annotated[str | None, typer.Argument(help="Of diff: the second set.")] = None,
    row: Annotated[int | None, typer.Option("--row", help="A set's training row, rendered, its mask coloured.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Of a run: renew it until the run ends.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the project has, and what an artifact says of itself."""
    from tunesmith import views

    found = open_project(project)
    if other is not None and (kind != "diff" or row is not None):
        raise UsageError(f"{other} is one word too many", expected="two sets after diff, as in: show diff A B")
    if follow and kind != "run":
        raise UsageError(f"--follow of a {kind or 'project'}", fix="tunesmith show run --follow")
    if kind == "diff":
        facts, text = views.diff_view(found, name, other)
    elif row is not None and kind in (None, "set"):
        from tunesmith.token_view import row_view

        facts, text = row_view(found, name, row, colour=sys.stderr.isatty())
    elif row is not None:
        raise UsageError(f"--row of a {kind}", expected="a set's row", fix=f"tunesmith show set --row {row}")
    elif kind == "run":
        from tunesmith import views_run

        facts, text = (views_run.follow if follow else views_run.run_view)(found, name)
    elif kind is None:
        facts, text = views.overview(found)
    else:
        facts, text = views.artifact_view(found, kind, name)
    say(text)
    end(as_json, facts, "")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What this machine and installation can do, and what is wrong with them."""
    from tunesmith import views

    facts, problems = views.doctor()
    say(lines(facts))
    for problem in problems:
        say(f"problem: {problem}")
    end(as_json, {**facts, "problems": problems}, "tunesmith demo" if not problems else "")
    if problems:
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
