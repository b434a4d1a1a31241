"""The embedded base: a tiny Llama pretrained on the spot from the text that every Python install carries, and cached.

What the demo holds out (whole classes and functions) is left out of its text, so nothing is tested that it has read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sysconfig
import tempfile
from pathlib import Path

from tunesmith.collect.lessons import collect_lessons
from tunesmith.collect.stdlib import harvest
from tunesmith.core.artifact import Artifact, file_hash, open_artifact
from tunesmith.core.jsonl import read_rows
from tunesmith.core.project import cache_dir
from tunesmith.core.runlog import say
from tunesmith.prepare import stage as prepare
from tunesmith.train.config import PretrainConfig

# The code that decides what the base reads and how it learns: a change in it makes another base.
_RECIPE = (
    "embedded.py",
    "collect/lessons.py",
    "collect/stdlib.py",
    "prepare/groups.py",
    "prepare/split.py",
    "train/pretrain.py",
)


def embedded_base(config: PretrainConfig | None = None) -> Path:
    """The model directory of the embedded base, made on first use (about two minutes on two cores)."""
    return embedded_run(config).path / "model"


def embedded_folder(config: PretrainConfig | None = None) -> Path:
    """Where the run of the embedded base lies once it is made."""
    return cache_dir() / "bases" / f"base-{_key(config or PretrainConfig())}"


def embedded_run(config: PretrainConfig | None = None) -> Artifact:
    """The pretraining run of the embedded base: its receipt has the losses, its samples the before and after."""
    config = config or PretrainConfig()
    final = embedded_folder(config)
    folder = final.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{final.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two projects that start at once make it once
        if final.is_dir():
            return open_artifact(final, "run")
        from tunesmith.train import pretrain

        say(f"making the embedded base, once; it is kept in {folder}")
        texts = _texts()
        facts = {"base": "", "source": "the standard library's documentation", "documents": len(texts)}
        return pretrain.run(config, texts, final, facts)


def _texts() -> list[str]:
    """All documents but those of the classes and functions that the demo holds out, and but their copies elsewhere."""
    library = harvest()
    with tempfile.TemporaryDirectory() as scratch:
        raw = collect_lessons(Path(scratch, "raw"))
        set_ = prepare.run(prepare.PrepareConfig(), [raw], Path(scratch, "sets"))
        held = {row.id for part in ("valid", "test") for row in read_rows(set_.path / f"{part}.jsonl")}
        rows = [row for row in read_rows(raw.path / "examples.jsonl") if row.id in held and row.meta.origin == "human"]
    groups = frozenset(row.meta.group for row in rows if row.meta.group)
    copied = {text for group, text in library.documents if group in groups}
    asked = [row.question for row in rows]
    texts = [text for text in library.texts(without=groups) if text not in copied]
    return [text for text in texts if not any(question in text for question in asked)]


def _key(config: PretrainConfig) -> str:
    """By recipe, config, and the names and sizes of the standard library's files: 50 ms, against 3 s to read them."""
    recipe = [file_hash(Path(__file__).parent / name) for name in _RECIPE]
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "__pycache__"}
    found = sorted(p for p in root.rglob("*.py") if not skip & set(p.relative_to(root).parts))
    sizes = [(p.relative_to(root).as_posix(), p.stat().st_size) for p in found]
    blob = json.dumps([recipe, config.model_dump(mode="json"), sizes])
    return hashlib.sha256(blob.encode()).hexdigest()[:16]
