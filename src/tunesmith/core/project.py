"""A project: a folder with `tunesmith.toml`, and the places of its artifacts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import MANIFEST, Artifact, artifacts, open_artifact
from tunesmith.core.config import C, Config, make, read_toml
from tunesmith.core.errors import UsageError, did_you_mean

TOML = "tunesmith.toml"
PLACES = {  # kind of artifact -> folder; kinds that share one are told apart by their manifests
    "raw": "data/raw",
    "set": "data/sets",
    "run": "runs",
    "eval": "evals",
    "compare": "evals",
    "test": "evals",
    "benchmark": "evals",
    "judge": "evals",
    "gate": "evals",
    "errors": "errors",
}
MAKERS = {  # others: the kind's own name
    "raw": "collect FILE",
    "set": "prepare",
    "run": "train",
    "eval": "evaluate",
    "errors": "diagnose",
}


class TaskConfig(Config):
    """What the project is for."""

    name: str
    """the name of the task, shown in reports"""
    system: str = ""
    """a system message put before every example, in training as in serving; "" for none"""
    base: str = "default"
    """the base model: "default" (the embedded tiny one), a directory, or a hub id"""
    template: str = "auto"
    """auto (the model's own chat template, or plain), plain, alpaca, or the path of a .jinja file"""


class Project:
    """A folder with a task. `sections` are the raw tables of its TOML file."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        file = self.path / TOML
        if not file.is_file():
            raise UsageError(f"{path} is not a project: no {TOML}", fix="tunesmith new DIR --data FILE")
        self.sections: dict[str, Any] = read_toml(file)
        self.task = self.config("task", TaskConfig)

    def config(self, section: str, kind: type[C], **overrides: Any) -> C:
        """The config of one stage: the file's section, then every override that is not None."""
        values = self.sections.get(section, {})
        if not isinstance(values, dict):
            where = str(self.path / TOML)
            raise UsageError(f"'{section}' is not a section", where=where, expected=f"[{section}], its keys below it")
        values = values | {key: value for key, value in overrides.items() if value is not None}
        return make(kind, values, where=f"{self.path / TOML} [{section}]")

    def check_sections(self, known: list[str]) -> None:
        """Raise UsageError on a section that nothing reads."""
        for section in self.sections:
            if section not in known:
                raise UsageError(f"unknown section [{section}]", where=TOML, fix=did_you_mean(section, known))

    def place(self, kind: str) -> Path:
        return self.path / PLACES[kind]

    def names(self, kind: str) -> list[str]:
        """Names of the finished artifacts of one kind, oldest first."""
        return [path.name for path in artifacts(self.place(kind), kind)]

    def open(self, kind: str, name: str | None = None) -> Artifact:
        """Open an artifact by name or path, or the newest of its kind. Raises UsageError when there is none."""
        if name is not None:
            for path in (self.place(kind) / name, Path(name), self.path / name):
                if (path / MANIFEST).is_file():
                    return open_artifact(path, kind)
        names = self.names(kind)
        if not names:
            raise UsageError(f"the project has no {kind} yet", fix=f"tunesmith {MAKERS.get(kind, kind)}")
        if name is not None:
            raise UsageError(f"no {kind} '{name}'", fix=did_you_mean(name, names))
        return open_artifact(self.place(kind) / names[-1], kind)

    def next_name(self, kind: str) -> str:
        """The next free numbered name, such as run-3. One that is being written (.run-3.*) is not free."""
        place = self.place(kind)
        taken = {path.name for path in place.iterdir()} if place.is_dir() else set()
        numbers = [int(m[1]) for n in taken if (m := re.fullmatch(rf"\.?{kind}-(\d+)(\..*)?", n))]
        return f"{kind}-{max(numbers, default=0) + 1}"


def find_project(start: Path | None = None) -> Project:
    """The project that `start` lies in: the nearest folder upwards with a tunesmith.toml."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / TOML).is_file():
            return Project(folder)
    raise UsageError(f"no {TOML} in {here} or above it", fix="tunesmith new DIR --data FILE, or --project DIR")


def cache_dir() -> Path:
    """Where what can be made again is kept: $TUNESMITH_CACHE, or tunesmith in the user's cache folder."""
    given = os.environ.get("TUNESMITH_CACHE")
    cache = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tunesmith"
    return cache.expanduser()
