"""What a project and a machine say of themselves, as (facts for programs, text for people)."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import MANIFEST
from tunesmith.core.errors import UsageError, did_you_mean
from tunesmith.core.jsonl import read_json, read_rows
from tunesmith.core.project import PLACES, Project, cache_dir
from tunesmith.loop import base_path, template, unfinished_runs

# kind -> the facts worth a line
_FACTS = {
    "raw": ("rows_in", "kept", "rejected"),
    "set": ("rows_in", "kept", "train", "valid", "test", "leaked"),
    "run": ("method", "base", "set", "steps", "train_loss", "val_loss", "seconds"),
    "eval": ("parents", "split", "n"),
}
_TRAINED, _PLAIN = "\x1b[32m", "\x1b[0m"  # green and back


def overview(project: Project) -> tuple[dict[str, Any], str]:
    """Every artifact of a project, a line each."""
    lines, facts = [f"{project.task.name}: base {project.task.base}"], {}
    for kind in PLACES:
        facts[kind] = project.names(kind)
        for name in facts[kind]:  # not opened: that would read every weight of every run
            manifest = read_json(project.place(kind) / name / MANIFEST)
            lines.append(f"  {kind:<4} {name:<14} {_line(kind, manifest['facts'])}")
    unfinished = unfinished_runs(project)
    lines += [f"  run  {name:<14} unfinished: tunesmith train --resume --name {name}" for name in unfinished]
    return {"project": str(project.path), **facts, "unfinished": unfinished}, "\n".join(lines)


def artifact_view(project: Project, kind: str, name: str | None) -> tuple[dict[str, Any], str]:
    """An artifact's facts and where its report lies."""
    if kind not in PLACES:
        raise UsageError(f"unknown kind '{kind}'", fix=did_you_mean(kind, PLACES))
    found = project.open(kind, name)
    facts = {"name": found.name, "path": str(found.path), "created": found.manifest["created"], **found.facts}
    lines = [f"{kind} {found.name}  ({found.path})"]
    lines += [f"  {key}: {value}" for key, value in facts.items() if key not in ("name", "path")]
    if kind == "eval":
        from tunesmith.evaluate.report import table

        lines.append(table(read_json(found.path / "report.json")))
    lines += [f"  see {path}" for report in ("report.md", "report.html") if (path := found.path / report).is_file()]
    return facts, "\n".join(lines)


def diff_view(project: Project, old: str | None, new: str | None) -> tuple[dict[str, Any], str]:
    """What came, went, changed or moved from one set to another; the newest two, where none is named."""
    from tunesmith.prepare.diff import diff

    names = project.names("set")
    if old is None and len(names) < 2:
        raise UsageError("there is one set, or none: nothing to compare", fix="tunesmith prepare, after a change")
    if (old is None) != (new is None):
        raise UsageError("diff takes two sets", expected="tunesmith show diff A B", fix=f"known: {', '.join(names)}")
    return diff(project.open("set", old or names[-2]), project.open("set", new or names[-1]))


def row_view(project: Project, name: str | None, number: int, *, colour: bool) -> tuple[dict[str, Any], str]:
    """A training row as the model sees it: rendered by the base's own template, trained tokens marked."""
    set_ = project.open("set", name)
    rows = list(read_rows(set_.path / "train.jsonl"))
    if not 1 <= number <= len(rows):
        raise UsageError(f"{set_.name} has no training row {number}", expected=f"1 to {len(rows)}")
    from tunesmith.model.load import ensure_fast_tokenizer, resolve
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer
    from tunesmith.train.config import TrainConfig

    base = base_path(project, project.task.base) or resolve(project.task.base)
    tokenizer = Tokenizer.load(ensure_fast_tokenizer(base, cache_dir() / "tokenizers"))
    train_on = project.config("train", TrainConfig).train_on
    examples = Renderer(tokenizer, template(project), train_on).render(rows[number - 1])
    lines = []
    for example in examples:
        runs = itertools.groupby(zip(example.ids, example.mask, strict=True), key=lambda pair: pair[1])
        texts = [(tokenizer.decode([i for i, _ in run], keep_special=True), trained) for trained, run in runs]
        lines.append("".join(_marked(text, trained, colour) for text, trained in texts))
        lines.append(f"({sum(example.mask)} of {len(example.ids)} tokens are trained)")
    facts = [{"ids": e.ids, "mask": e.mask} for e in examples]
    return {"set": set_.name, "row": number, "id": rows[number - 1].id, "examples": facts}, "\n".join(lines)


def doctor(least_gb: float = 1.0) -> tuple[dict[str, Any], list[str]]:
    """(facts, problems) of this machine and installation. A check that cannot run is a problem, not a pass.

    `least_gb`: free disk and memory below this many GB (of 1e9 bytes) are problems.
    """
    problems = []
    try:
        from tunesmith.model.device import available_memory_gb, machine_facts, pick_device, pick_dtype
    except ImportError as error:
        return {"python": sys.version.split()[0], "tunesmith": version("tunesmith")}, [f"not installed: {error.name}"]
    dtype, why = pick_dtype("auto", pick_device())
    cache = cache_dir()
    near = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(near).free / 1e9
    if free < least_gb:
        problems.append(f"only {free:.2f} GB free for the cache ({cache})")
    if available_memory_gb() < least_gb:
        problems.append(f"only {available_memory_gb():.2f} GB of memory free")
    if not near.is_dir() or not os.access(near, os.W_OK):
        problems.append(f"the cache cannot be written: {near}")
    bases = sorted(p.name for p in (cache / "bases").glob("base-*") if p.is_dir())
    facts = {
        "tunesmith": version("tunesmith"),
        **machine_facts(),
        "dtype": f"{str(dtype).removeprefix('torch.')} ({why})",
        "memory_free_gb": round(available_memory_gb(), 1),
        "disk_free_gb": round(free, 1),
        "cache": str(cache),
        "embedded_base": bases or "not made yet; tunesmith pretrain --embedded makes it",
    }
    return facts, problems


def _line(kind: str, facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_brief(facts[name])}" for name in _FACTS[kind] if facts.get(name) is not None)


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{k}: {v['name'] if isinstance(v, dict) else v}" for k, v in value.items()) or "none"
    return str(Path(value).name if isinstance(value, str) and "/" in value else value)


def _marked(text: str, trained: bool, colour: bool) -> str:
    if not trained:
        return text
    return f"{_TRAINED}{text}{_PLAIN}" if colour else f"[{text}]"
