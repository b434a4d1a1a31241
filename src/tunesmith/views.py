"""What a project and a machine say of themselves, as (facts for programs, text for people)."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import MANIFEST
from tunesmith.core.errors import DataError, UsageError, did_you_mean
from tunesmith.core.jsonl import read_json
from tunesmith.core.project import PLACES, Project, cache_dir
from tunesmith.loop import unfinished_runs

# kind -> the facts worth a line
_FACTS = {
    "raw": ("rows_in", "kept", "rejected"),
    "set": ("rows_in", "kept", "train", "valid", "test", "leaked"),
    "run": ("method", "base", "set", "steps", "train_loss", "val_loss", "seconds"),
    "eval": ("split", "n"),
    "compare": ("n", "verdict"),
    "gate": ("decision",),
    "benchmark": ("n", "average", "forgotten"),
    "judge": ("n", "win_rate", "verdict"),
    "test": ("suite", "passed", "assertions", "failed"),
    "errors": ("n", "errors", "proposals"),
}


def overview(project: Project) -> tuple[dict[str, Any], str]:
    """Every artifact of a project, a line each."""
    lines, facts = [f"{project.task.name}: base {project.task.base}"], {}
    for kind in PLACES:
        facts[kind] = project.names(kind)
        for name in facts[kind]:  # not opened: that would read every weight of every run
            manifest = read_json(project.place(kind) / name / MANIFEST)
            line = _line(kind, manifest["facts"])
            line += _verdict(project.place(kind) / name) if kind == "eval" else ""
            lines.append(f"  {kind:<7} {name:<14} {line}")
    unfinished = unfinished_runs(project)
    lines += [f"  run     {name:<14} unfinished: tunesmith train --resume --name {name}" for name in unfinished]
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


def _verdict(folder: Path) -> str:
    """The first metric that ranks answers, tuned and base, and what their difference allows one to say."""
    from tunesmith.evaluate.report import RANKING, interval, number

    try:
        metrics = read_json(folder / "report.json")["metrics"]
    except (DataError, OSError):
        return ", but its report.json cannot be read"
    name = next((name for name in RANKING if metrics.get(name, {}).get("n")), None)
    if name is None:
        return ", nothing was measured"
    cell = metrics[name]
    change = f"{cell['verdict']}, {number(cell['difference'], sign=True)} {interval(cell)}"
    return f": {name} {number(cell['tuned'])} tuned, {number(cell['base'])} base: {change}"


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{k}: {v}" for k, v in value.items()) or "none"
    return str(Path(value).name if isinstance(value, str) and "/" in value else value)
