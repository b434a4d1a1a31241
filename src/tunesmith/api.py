"""The highest level: one call from a base and a file to a model that answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunesmith import loop
from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import UsageError
from tunesmith.core.project import TOML, Project
from tunesmith.core.records import Message
from tunesmith.engine.base import Sampling
from tunesmith.evaluate.stage import summary


class Model:
    """A tuned model, loaded when it is first asked. `project` and `run` are where everything about it lies."""

    def __init__(self, project: Project, run: Artifact) -> None:
        self.project, self.run = project, run
        self._loaded: tuple[Any, Any] | None = None

    def __call__(self, prompt: str, *, max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 0) -> str:
        """The answer to a question, under the template and system message that it was trained with."""
        if self._loaded is None:
            self._loaded = loop.load_engine(self.run.path / "model")
        engine, renderer = self._loaded
        system = self.project.task.system
        messages = [*([Message("system", system)] if system else []), Message("user", prompt)]
        sampling = Sampling(max_new_tokens, temperature=temperature, seed=seed)
        text: str = engine.generate([renderer.prompt(messages)], sampling)[0].text
        return text

    def evaluate(self, **settings: Any) -> dict[str, Any]:
        """Base and tuned on the rows that were held out: the object that `tunesmith evaluate --json` prints."""
        return summary(loop.evaluate(self.project, run_name=self.run.name, **settings))

    def save(self, folder: str | Path) -> Path:
        """Copy the model directory (weights, tokenizer, chat template) to a folder that does not exist yet."""
        target = Path(folder)
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise UsageError(f"{target} is taken", fix="save to a new folder")
        shutil.copytree(self.run.path / "model", target, dirs_exist_ok=True)
        return target

    def __repr__(self) -> str:
        return f"Model({str(self.run.path)!r})"


def finetune(
    base: str,
    data: str | Path,
    *,
    project: str | Path | None = None,
    map: dict[str, str] | None = None,
    **settings: Any,
) -> Model:
    """Collect, prepare and train, and return the tuned model.

    `base`: "default", a model directory, or a hub id. `data`: a file of examples. `project`: the folder for all
    artifacts; the file's name without its ending, beside the working directory, where not given. `map`: which column
    is what, where detection asks. `settings`: any field of TrainConfig, such as method="lora" or num_epochs=2.
    """
    folder = Path(project) if project is not None else Path(Path(data).stem)
    loop.check_files([Path(data)])
    if folder.is_file():
        raise UsageError(f"{folder} is a file, so it cannot be the project", fix="give project=FOLDER")
    found = loop.open_project(folder) if (folder / TOML).is_file() else loop.new(folder, base)
    loop.collect(found, [Path(data)], map)
    loop.prepare(found)
    return Model(found, loop.train(found, base=base, **settings))
