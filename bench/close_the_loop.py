"""The loop, closed on real data: evaluate, diagnose, fix the data, train again, and whether the errors became fewer.

    python bench/close_the_loop.py FOLDER [--base DIR] [--train "--max-steps 150"] > docs/fix_lamini.md

Makes the project FOLDER/lamini from lamini_docs.jsonl with the embedded base, or with the model directory DIR (such as
real_base.py makes), runs the verbs as a person would type them, and prints the transcript as Markdown. It goes on where
it was stopped: what each verb said is kept in FOLDER/said.jsonl. Half an hour of processor time.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from machine import card

from tunesmith.core.jsonl import read_json, read_jsonl
from tunesmith.diagnose.figures import percent, span
from tunesmith.embedded import embedded_run

DATA = Path(__file__).resolve().parents[2] / "shared/data"
ACCEPTED = ("off_topic",)  # guards that the tuned model missed: rows are proposed for them
TEST = "test_fraction = 0.3"  # a third is held out: small changes of a rate are seen in many rows only
QUICK = "--max-steps 150"  # of a first training: two epochs and a half
TRAIN = "train"  # with flags
COMMANDS = (
    "new lamini --data lamini_docs.jsonl --base base",
    "prepare",
    TRAIN,
    "evaluate",
    "diagnose",
    f"fix errors-1 {' '.join(f'--accept {name}' for name in ACCEPTED)} --train --yes",
)
_PROGRESS = re.compile(r"^\s*(?:pre)?training \d|^  (?:MFU|packed|measured|full):|^\s*$")
SAID = 44  # lines of one command at most
EXAMPLES = 6


def main(folder: Path, base: Path | None, flags: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").is_dir():
        shutil.copytree(base or embedded_run().path / "model", folder / "base")
    shutil.copyfile(DATA / "lamini/lamini_docs.jsonl", folder / "lamini_docs.jsonl")
    log = folder / "said.jsonl"
    said = {one["command"]: one["said"] for one in read_jsonl(log)} if log.is_file() else {}
    commands = [f"{command} {flags}" if command == TRAIN else command for command in COMMANDS]
    for command in commands:
        if command not in said:
            said[command] = run(command, folder if command.startswith("new") else folder / "lamini")
            if command.startswith("new"):
                settings = folder / "lamini/tunesmith.toml"
                settings.write_text(settings.read_text("utf-8").replace("test_fraction = 0.1", TEST), encoding="utf-8")
            with log.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"command": command, "said": said[command]}) + "\n")
    what = f"the base `{base}`" if base else "the embedded base"
    print(page(folder / "lamini", {command: said[command] for command in commands}, what))


def run(command: str, folder: Path) -> str:
    """What a verb says to people. Raises CalledProcessError where it fails."""
    words = [sys.executable, "-m", "tunesmith", *shlex.split(command)]
    done = subprocess.run(words, cwd=folder, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, stderr=done.stderr)
    return done.stderr


def page(project: Path, said: dict[str, str], base: str) -> str:
    after = read_json(project / "errors/errors-2/report.json")
    machine, run = card(), read_json(project / "runs/run-1/receipt.json")
    lines = [
        "# The loop, closed on the Lamini docs",
        "",
        f"What `bench/close_the_loop.py` printed: 1,400 questions and answers about Lamini, and {base}",
        f"({run['total_parameters']:,} parameters; {machine['cores']} cores, {machine['cpu']}); yours will differ.",
        f"In tunesmith.toml stands `{TEST}`: small changes of a rate are seen in many held-out rows only. Progress is",
        "left out.",
        "",
        *verdict(after),
        "",
        *scores(project),
        "",
        "## Transcript",
    ]
    for command in said:
        told = said[command].replace(f"{project.parent}/", "")
        kept = [line for line in told.splitlines() if not _PROGRESS.match(line)]
        cut = kept if len(kept) <= SAID else [*kept[:SAID], "..."]
        lines += ["", f"    $ tunesmith {command}", *(f"    {line}".rstrip() for line in cut)]
    return "\n".join([*lines, "", *edits(project), "", *answers(project)])


def verdict(after: dict) -> list[str]:
    """One line a category that changed by more than its interval allows to doubt; then what else moved."""
    told = []
    for name, cell in after["categories"].items():
        if cell["verdict"] != "cannot tell":
            told.append(
                f"- **{name}** is {cell['verdict']}: {percent(cell['before'])} before, {percent(cell['rate'])} after, "
                f"{percent(cell['difference'], True)} {span(cell, 'difference_', True)}, p = {cell['p']:.2g}, "
                f"n = {cell['n']} ({cell['fixed']} fixed, {cell['introduced']} new, {cell['persisting']} persist)"
            )
    rest = [
        f"{name} {percent(cell['before'])} to {percent(cell['rate'])}"
        for name, cell in after["categories"].items()
        if cell["verdict"] == "cannot tell" and (cell["before"] or cell["rate"])
    ]
    return [*(told or ["No category changed by more than chance."]), f"- cannot tell: {', '.join(rest)}"]


def scores(project: Path) -> list[str]:
    """What the mended data cost or brought elsewhere: the tuned model's scores before and after."""
    old, new = (read_json(project / f"evals/eval-{n}/report.json")["metrics"] for n in (1, 2))
    out = ["| tuned, against the references | before | after |", "| --- | ---: | ---: |"]
    names = [
        name
        for name in ("f1", "rougeL", "rougeL_precision", "rougeL_recall", "length_ratio", "guard_recall")
        if name in new
    ]
    return [*out, *(f"| {name} | {old[name]['tuned']:.3f} | {new[name]['tuned']:.3f} |" for name in names)]


def edits(project: Path) -> list[str]:
    """Some of the changes that were accepted, from everywhere in the list of each category."""
    offered = list(read_jsonl(project / "errors/errors-1/fixes.jsonl"))
    lines = ["## What was changed", ""]
    for category in ACCEPTED:
        mine = [one for one in offered if one["category"] == category and one["new"]]
        for one in mine[:: max(1, len(mine) // EXAMPLES)][:EXAMPLES]:
            texts = [message["content"] for message in one["new"]["messages"]]
            lines += [f"- {one['action']}, {one['why']}: {short(texts[0])}", f"  - {short(texts[-1])}"]
    return lines


def answers(project: Path) -> list[str]:
    """Held-out rows whose error of an accepted category went away, with both answers."""
    errors = read_jsonl(project / "errors/errors-2/errors.jsonl")
    fixed = [one for one in errors if any(one["change"].get(name) == "fixed" for name in ACCEPTED)]
    lines = ["## Answers that were fixed", ""]
    for one in fixed[:EXAMPLES]:
        lines += [f"- {short(one['prompt'])}", f"  - found: {short('; '.join(one['errors']['before'].values()))}"]
        lines += [f"  - before: {short(one['said']['before'])}", f"  - after: {short(one['said']['after'])}"]
    return lines


def short(text: str, most: int = 260) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--train", default=QUICK)
    asked = parser.parse_args()
    main(asked.folder.resolve(), asked.base, asked.train)
