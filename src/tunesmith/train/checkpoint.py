"""Checkpoints that a crash cannot spoil: an artifact each, no pickle, the last good ones kept.

A checkpoint holds what training changes (trained weights, optimizer, random state) and the loop's state. The order of
the data needs no state: it is a function of (seed, step).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError, ResourceError
from tunesmith.core.jsonl import read_json, write_json
from tunesmith.core.runlog import finite, say
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
            facts = {"step": state.step, "run": run_hash}
            write_json(work / "state.json", {"run": run_hash, "state": finite(state.to_json())})
            seal(work, final, "checkpoint", facts)
    except ResourceError as error:
        say(f"warning: checkpoint at step {state.step} was not saved: {error.what}. Training goes on.")
        return
    _retain(folder, state.best_step)


def latest(folder: Path, run_hash: str) -> Artifact | None:
    """The newest checkpoint that is whole; a corrupt one is set aside, loudly. Raises DataError for another run's."""
    for path in folder.glob(".step-*.tmp"):  # half written when the process was killed
        shutil.rmtree(path)
    for path in reversed(_saved(folder)):
        try:
            found = open_artifact(path, "checkpoint")
            run = read_json(path / "state.json")["run"]
        except (DataError, KeyError) as error:
            aside = path.with_name(path.name + ".corrupt")
            say(f"warning: {path.name} is corrupt ({error}); it is kept as {aside.name} and an older one is used")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            continue
        if run != run_hash:
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
    return State(**read_json(found.path / "state.json")["state"])


def restore_best(folder: Path, model: nn.Module, state: State) -> None:
    """Put the best weights back at the end. Where their checkpoint is lost, the last ones stay, and it is said."""
    if state.best_step in (0, state.step):
        return
    try:
        load(open_artifact(folder / f"step-{state.best_step:06d}", "checkpoint"), model)
    except DataError as error:
        say(f"warning: the best checkpoint is lost ({error.what}); the weights of step {state.step} are kept instead")
        state.best_step, state.best_val_loss = state.step, state.val_loss


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
    for path in _saved(folder)[:-KEEP]:
        if _step(path) != best_step:
            shutil.rmtree(path)


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint, or 0."""
    return max(map(_step, _saved(folder)), default=0)


def _saved(folder: Path) -> list[Path]:
    """The checkpoints, oldest first; by number, because a name may have more digits than another."""
    return sorted((p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
