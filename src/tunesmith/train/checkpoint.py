"""Checkpoints that a crash cannot spoil: an artifact each, no pickle, the last good ones kept.

A checkpoint holds what training changes (trained weights, optimizer, random state) and the loop's state. The order of
the data needs no state: it is a function of (seed, step).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError, ResourceError
from tunesmith.core.runlog import say
from tunesmith.model.optim import Optimizers
from tunesmith.train.loop import State

KEEP = 2  # the newest checkpoints that are kept besides the best: one may be corrupt


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, by name; tied weights once."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save(folder: Path, model: nn.Module, optimizers: Optimizers, state: State, run_hash: str) -> None:
    """Write checkpoint `step-N`, then drop those that are no longer needed.

    A full disk must not end a run that is well: it is said, older checkpoints stay, and training goes on.
    """
    final = folder / f"step-{state.step:06d}"
    if final.exists():
        return
    try:
        _check_space(folder, model, optimizers)
        with writing(final) as work:
            save_file(
                {k: v.cpu().contiguous() for k, v in trained_weights(model).items()}, work / "weights.safetensors"
            )
            save_file(
                {k: v.cpu().contiguous() for k, v in optimizers.tensors().items()}, work / "optimizer.safetensors"
            )
            save_file(_random_state(), work / "random.safetensors")
            (work / "state.json").write_text(json.dumps(state.to_json()), encoding="utf-8")
            seal(work, final, "checkpoint", {"step": state.step, "run": run_hash})
    except ResourceError as error:
        say(f"warning: checkpoint at step {state.step} was not saved: {error.what}. Training goes on.")
        return
    _retain(folder, state.best_step)


def latest(folder: Path, run_hash: str) -> Artifact | None:
    """The newest checkpoint that is whole; a corrupt one is set aside, loudly. Raises DataError for another run's."""
    for path in sorted(folder.glob("step-??????"), reverse=True):
        try:
            found = open_artifact(path, "checkpoint")
        except (DataError, KeyError) as error:
            say(
                f"warning: {path.name} is corrupt ({error}); it is kept as {path.name}.corrupt and an older one is used"
            )
            path.rename(path.with_name(path.name + ".corrupt"))
            continue
        if found.facts["run"] != run_hash:
            what = "this run was started with another config, data set, base or template"
            raise DataError(what, fix="resume with the same settings, or choose another --name")
        return found
    return None


def load(found: Artifact, model: nn.Module, optimizers: Optimizers | None = None) -> State:
    """Put a checkpoint's weights (and optimizer and random state, when given one) back. Returns the loop's state."""
    weights = _read(found.path / "weights.safetensors")
    own = trained_weights(model)
    if own.keys() != weights.keys():
        raise DataError(f"{found.path} holds other weights than this model trains")
    for name, parameter in own.items():
        parameter.copy_(weights[name])
    if optimizers is not None:
        optimizers.load(_read(found.path / "optimizer.safetensors"))
        random = _read(found.path / "random.safetensors")
        torch.set_rng_state(random["cpu"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all([random[f"cuda{i}"] for i in range(torch.cuda.device_count())])
    return State(**json.loads((found.path / "state.json").read_text("utf-8")))


def _random_state() -> dict[str, torch.Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda{i}": s for i, s in enumerate(cuda)}


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _check_space(folder: Path, model: nn.Module, optimizers: Optimizers) -> None:
    """Refuse before writing when the disk plainly has no room: a half-written file helps nobody."""
    tensors = [*trained_weights(model).values(), *optimizers.tensors().values()]
    needed = int(1.05 * sum(t.numel() * t.element_size() for t in tensors))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"the disk is full: {needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free in {folder}"
        raise ResourceError(what, fix="free some space")


def _retain(folder: Path, best_step: int) -> None:
    """Delete only after the new one is safe; never the best, never the newest two."""
    found = sorted(folder.glob("step-??????"))
    for path in found[:-KEEP]:
        if path.name != f"step-{best_step:06d}":
            shutil.rmtree(path)
