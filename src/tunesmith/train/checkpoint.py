"""Checkpoints that nothing can spoil: an artifact each, no pickle, the last good ones kept.

A checkpoint holds what training changes (trained weights, optimizer, random states) and the loop's state. The order of
the data needs no state: it is a function of (seed, step).
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError, ResourceError
from tunesmith.core.jsonl import read_json, write_json
from tunesmith.core.runlog import finite, say
from tunesmith.model.optim import Optimizers
from tunesmith.train import chance
from tunesmith.train.rescue import finite_weights
from tunesmith.train.state import State

KEEP = 2  # the newest checkpoints that are kept besides the best: one may be corrupt
_ROOM = 2.2  # times a checkpoint's size that must be free before a run: the one that is, the next, and a margin


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, by name; tied weights once. In full precision where a caller has seen to it."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save(folder: Path, model: nn.Module, optimizers: Optimizers, state: State, run_hash: str) -> bool:
    """Write checkpoint `step-N`, then drop those that are no longer needed. Returns whether it is on disk.

    A disk that is full or fails must not end a run that is well: it is said, the older checkpoints stay, and training
    goes on. On a full disk the older one of the newest two makes room, once the newest is found whole.
    """
    final = folder / f"step-{state.step:06d}"
    if final.exists():
        return True
    if not finite_weights(model):
        say(f"warning: checkpoint at step {state.step} was not saved: its weights are not finite")
        return False
    try:
        try:
            _write(final, model, optimizers, state, run_hash)
        except ResourceError:
            if final.exists() or not _prune(folder, state.best_step):
                raise
            _write(final, model, optimizers, state, run_hash)
    except (ResourceError, OSError, SafetensorError) as error:
        what = error.what if isinstance(error, ResourceError) else error
        say(f"warning: checkpoint at step {state.step} was not saved: {what}. Training goes on, and tries again later.")
        return False
    _retain(folder, state.best_step, KEEP)
    return True


def check_room(folder: Path, model: nn.Module) -> None:
    """Before a run: raise ResourceError where the disk has no room for the checkpoints that it will write.

    A checkpoint has at most three times the bytes of what is trained: the weights and two moments of each.
    """
    size = 3 * sum(t.numel() * t.element_size() for t in trained_weights(model).values())
    _check_free(folder, int(_ROOM * size), "for the checkpoints of this run")


def latest(folder: Path, run_hash: str, *, sound: bool = False) -> Artifact | None:
    """The newest checkpoint that is whole; a corrupt one is set aside, loudly. Raises DataError for another run's.

    With `sound`, the newest whose last step was not skipped.
    """
    for path in folder.glob(".step-*.tmp"):  # half written, or half deleted, when the process was killed
        shutil.rmtree(path, ignore_errors=True)
    for path in reversed(_saved(folder)):
        try:
            found, saved = _open(path)
        except (DataError, OSError) as error:
            aside = path.with_name(path.name + ".corrupt")
            say(f"warning: {path.name} is corrupt ({error}); it is kept as {aside.name} and an older one is used")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            continue
        if saved["run"] != run_hash:
            what = "this run was started with another config, data set, base or template"
            raise DataError(what, fix="resume with the same settings, or choose another --name")
        if not (sound and saved["state"]["skipped"]):
            return found
    return None


def load(found: Artifact, model: nn.Module, optimizers: Optimizers | None = None) -> State:
    """Put a checkpoint's weights (and optimizer and random states, when given one) back. Returns the loop's state.

    Raises DataError, before anything is changed, where it is of another model or version of Tunesmith.
    """
    weights, own = _read(found.path / "weights.safetensors"), trained_weights(model)
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
        raise DataError(f"{found.path} holds other weights than this model trains")
    try:
        state = State(**read_json(found.path / "state.json")["state"])
        random = chance.from_tensors(_read(found.path / "random.safetensors"))
    except (KeyError, TypeError) as error:
        raise DataError(f"{found.path} is of another version of Tunesmith", fix="train again") from error
    moments = _read(found.path / "optimizer.safetensors") if optimizers else {}
    for name, parameter in own.items():
        parameter.copy_(weights[name])
    if optimizers:
        optimizers.load(moments)
        chance.put_back(random)
    return state


def roll_back(folder: Path, model: nn.Module, optimizers: Optimizers, run_hash: str) -> State | None:
    """Load the newest sound checkpoint and drop those after it: what they hold is not gone on from."""
    found = latest(folder, run_hash, sound=True)
    if found is None:
        return None
    state = load(found, model, optimizers)
    for path in _saved(folder):
        if _step(path) > state.step:
            _drop(path)
    return state


def restore_best(folder: Path, model: nn.Module, state: State) -> None:
    """Put the best weights back at the end. Where their checkpoint is lost, the last ones stay, and it is said."""
    last = finite(state.val_loss)
    if state.best_step == state.step or (state.best_step == 0 and last is None):
        return
    try:
        load(open_artifact(folder / f"step-{state.best_step:06d}", "checkpoint"), model)
    except DataError as error:
        say(f"warning: the best checkpoint is lost ({error.what}); the weights of step {state.step} are kept instead")
        state.best_step, state.best_val_loss = state.step, last


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint, or 0."""
    return max(map(_step, _saved(folder)), default=0)


def _write(final: Path, model: nn.Module, optimizers: Optimizers, state: State, run_hash: str) -> None:
    weights, moments = trained_weights(model), optimizers.tensors()
    size = sum(t.numel() * t.element_size() for t in (*weights.values(), *moments.values()))
    _check_free(final.parent, int(1.05 * size), "for it")  # before writing: half a file helps nobody
    with writing(final) as work:
        save_file({k: v.cpu().contiguous() for k, v in weights.items()}, work / "weights.safetensors")
        save_file({k: v.cpu().contiguous() for k, v in moments.items()}, work / "optimizer.safetensors")
        save_file(chance.to_tensors(chance.take()), work / "random.safetensors")
        write_json(work / "state.json", {"run": run_hash, "state": finite(state.to_json())})
        seal(work, final, "checkpoint", {"step": state.step, "run": run_hash})


def _open(path: Path) -> tuple[Artifact, dict[str, Any]]:
    """A checkpoint and its state.json. Raises DataError where a byte that matters has changed."""
    found, saved = open_artifact(path, "checkpoint"), read_json(path / "state.json")
    if found.facts != {"step": _step(path), "run": saved["run"]}:  # the manifest is in no manifest
        raise DataError(f"{path / 'manifest.json'} does not belong to its files")
    return found, saved


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _check_free(folder: Path, needed: int, what_for: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"the disk is full: {needed / 1e6:,.0f} MB needed {what_for}, {free / 1e6:,.0f} MB free in {folder}"
        raise ResourceError(what, fix="free some space and run the same command again")


def _retain(folder: Path, best_step: int, keep: int) -> list[Path]:
    """Drop all but the best and the newest ones: only ever after the new one is safe. Returns what was dropped."""
    dropped = [path for path in _saved(folder)[:-keep] if _step(path) != best_step]
    for path in dropped:
        _drop(path)
    return dropped


def _prune(folder: Path, best_step: int) -> bool:
    """Make room on a full disk by keeping one of the newest in place of two, if that one is whole."""
    saved = _saved(folder)
    with suppress(DataError, OSError):
        return bool(saved and _open(saved[-1]) and _retain(folder, best_step, 1))
    return False


def _drop(path: Path) -> None:
    """Renamed first, so that one half deleted is never taken for a corrupt one. What fails is tried again later."""
    gone = path.with_name(f".{path.name}.old.tmp")
    with suppress(OSError):
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        shutil.rmtree(gone)


def _saved(folder: Path) -> list[Path]:
    """The checkpoints, oldest first; by number, because a name may have more digits than another."""
    return sorted((p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
