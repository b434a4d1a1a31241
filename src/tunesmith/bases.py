"""What a task names as its base, as something that can be used: a directory, a tokenizer, an engine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import ModelError
from tunesmith.core.project import Project
from tunesmith.core.runlog import say

if TYPE_CHECKING:
    from tunesmith.engine.answers import Answers
    from tunesmith.engine.chat import LocalChat
    from tunesmith.engine.embedding import Embedder
    from tunesmith.engine.local import LocalEngine
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer


CHECKED_ON = (  # what 8-bit weights are tried on: prose, a question, code
    "The capital of France is Paris, and the capital of Italy is",
    "Question: How do I reset my password?\nAnswer: Open the settings and",
    "def mean(values):\n    return sum(values) / len(values)\n",
)


def load_engine(folder: Path, renderer: Renderer | None = None, *, int8: bool = False) -> tuple[LocalEngine, Renderer]:
    """A model directory as an engine, in the format that its weights are stored in, or in 8 bits (on a CPU).

    Raises ModelError where 8 bits change the model too much; what they change is said.
    """
    from tunesmith.engine import weights
    from tunesmith.engine.local import LocalEngine
    from tunesmith.model import device, load
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer

    device.set_up()
    renderer = renderer or Renderer(Tokenizer.load(folder))
    model = load.load_trained(folder, load.stored_dtype(folder))
    if int8:
        quality = weights.round_to_int8(model, [renderer.tokenizer.encode(text) for text in CHECKED_ON])
        say(f"8-bit weights of {folder.name}: {quality}")
    else:
        weights.pack(model)
    return LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids), renderer


def load_embedder(project: Project, name: str | None) -> Embedder | None:
    """The model for similarity: a directory here or in the project, or the extra's; None where it is not installed.

    Raises ModelError where the directory that is named is none.
    """
    from tunesmith.engine.embedding import LocalEmbedder, packaged

    if name is None:
        folder = packaged()
        return LocalEmbedder(folder) if folder else None
    places = (Path(name).expanduser(), project.path / name)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise ModelError(f"there is no directory {name}", expected="a sentence-transformers directory")
    return LocalEmbedder(found)


def base_path(project: Project, base: str) -> Path | None:
    """Where a base lies: the embedded one, a run of this project, or a directory here or in the project.

    None where it is none of these: a hub id, or a mistake.
    """
    if base == "default":
        from tunesmith.embedded import embedded_base

        return embedded_base()
    if base in project.names("run"):
        return project.open("run", base).path / "model"
    places = (Path(base).expanduser(), project.path / base)
    return next((place.resolve() for place in places if place.is_dir()), None)  # a receipt must hold in any folder


def found_base(project: Project, base: str) -> Path:
    """The directory of a base, fetched from the hub where it lies there. Raises ModelError where there is none."""
    from tunesmith.model.load import resolve

    return base_path(project, base) or resolve(base)


def local_chat(project: Project | None, name: str, answers: Answers) -> LocalChat:
    """A model that is asked in messages: a base as `found_base` knows it, or without a project a directory or hub id.

    Its name in provenance holds the hash of its weights: answers of another model are never taken for its own.
    """
    from tunesmith.engine.chat import LocalChat
    from tunesmith.model.load import base_hash, resolve

    here = Path(name).expanduser()
    folder = found_base(project, name) if project else here if here.is_dir() else resolve(name)
    engine, renderer = load_engine(folder)
    return LocalChat(engine, renderer, f"{folder.name}-{base_hash(folder)[:12]}", answers)


def tokenizer_at_hand(project: Project) -> Tokenizer | None:
    """The tokenizer of the project's base, where that is on this machine: nothing is made or fetched for it."""
    from tunesmith.text.tokenizer import Tokenizer

    base = project.task.base
    if base == "default":
        from tunesmith.embedded import embedded_folder

        folder: Path | None = embedded_folder() / "model"
    else:
        folder = base_path(project, base) or _fetched(base)
    with suppress(ModelError):  # whoever trains is told why
        return Tokenizer.load(folder) if folder else None
    return None


def _fetched(base: str) -> Path | None:
    """The directory in the hub's cache where a base's tokenizer lies."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        found = try_to_load_from_cache(base, "tokenizer.json")
        return Path(found).parent if isinstance(found, str) else None
    return None


def template(project: Project) -> str:
    """The name of the task's template, or the path of its file: relative to the project."""
    name = project.task.template
    return str(project.path / name) if name.endswith(".jinja") else name
