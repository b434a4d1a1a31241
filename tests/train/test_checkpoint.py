import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.errors import DataError
from tunesmith.model.optim import Optimizers, adamw, muon_adamw
from tunesmith.text.render import Example
from tunesmith.train import checkpoint, loop
from tunesmith.train.plan_batches import ExampleSource


def make(model: nn.Module, kind: str = "adamw") -> Optimizers:
    parts = [adamw(model.parameters(), 0.1, 0.1)] if kind == "adamw" else muon_adamw(model, 0.1, 0.1, 0.1)
    return Optimizers(parts, lambda step: 1 / (step + 1))


class Dropped(nn.Module):
    """A model that draws random numbers while it trains."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.drop = inner, nn.Dropout(0.5)

    def forward(self, **inputs: Any) -> Any:
        out = self.inner(**inputs)
        out.logits = self.drop(out.logits)
        return out


def train(model: nn.Module, optimizers: Optimizers, examples: list[Example], state: loop.State, end: int) -> loop.State:
    source = ExampleSource(examples, 3, 100, 0)
    return loop.fit(model, source, optimizers, loop.Settings(end), state=state)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_checkpoint_goes_on_bit_for_bit_with_its_optimizer_and_random_state(
    bigram: Any, examples: list[Example], tmp_path: Path, kind: str
) -> None:
    model = Dropped(bigram())
    optimizers = make(model, kind)
    torch.manual_seed(1)
    state = train(model, optimizers, examples, loop.State(), 3)
    checkpoint.save(tmp_path, model, optimizers, state, "run")
    train(model, optimizers, examples, state, 6)

    torch.manual_seed(2)
    other = Dropped(bigram())
    fresh = make(other, kind)
    found = checkpoint.latest(tmp_path, "run")
    assert found is not None
    again = checkpoint.load(found, other, fresh)
    assert (again.step, again.trained_tokens) == (3, 3 * 0 + again.trained_tokens)
    train(other, fresh, examples, again, 6)
    assert torch.equal(model.inner.table, other.inner.table)
    assert torch.equal(model.inner.bias, other.inner.bias)
    mine, theirs = optimizers.tensors(), fresh.tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    left, right = again.to_json(), state.to_json()
    assert left | {"seconds": 0} == right | {"seconds": 0}


def saved(folder: Path, model: nn.Module, steps: list[int], best: int = 0, run: str = "run") -> None:
    optimizers = make(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizers.step(0)
    for step in steps:
        with torch.no_grad():
            model.bias.fill_(step)
        checkpoint.save(folder, model, optimizers, loop.State(step=step, best_step=best), run)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_best_and_the_newest_two_are_kept(bigram: Any, tmp_path: Path) -> None:
    saved(tmp_path, bigram(), [2, 4, 6, 8, 10], best=4)
    assert names(tmp_path) == ["step-000004", "step-000008", "step-000010"]


def test_checkpoints_are_ordered_by_number_beyond_six_digits_too(bigram: Any, tmp_path: Path) -> None:
    saved(tmp_path, bigram(), [999_998, 999_999, 1_000_000, 1_000_001])
    assert names(tmp_path) == ["step-1000000", "step-1000001"]
    assert checkpoint.newest_step(tmp_path) == 1_000_001
    found = checkpoint.latest(tmp_path, "run")
    assert found is not None
    assert found.name == "step-1000001"


FILES = ["weights.safetensors", "optimizer.safetensors", "random.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    bigram: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    model = bigram()
    saved(tmp_path, model, [2, 4])
    file = tmp_path / "step-000004" / name
    content = file.read_bytes()
    middle = len(content) // 2
    spoil = {
        "flip": content[:middle] + bytes([content[middle] ^ 0x40]) + content[middle + 1 :],
        "truncate": content[:middle],
        "empty": b"",
    }
    file.unlink() if damage == "remove" else file.write_bytes(spoil[damage])
    found = checkpoint.latest(tmp_path, "run")
    assert found is not None
    assert found.name == "step-000002"
    assert "step-000004.corrupt" in names(tmp_path)
    assert "warning: step-000004 is corrupt" in capsys.readouterr().err
    assert checkpoint.load(found, model).step == 2
    assert model.bias[0].item() == 2


def test_no_flipped_bit_gives_another_state_than_one_that_was_saved(bigram: Any, tmp_path: Path) -> None:
    model = bigram(3)
    for name in FILES:
        for part in range(12):
            folder = tmp_path / f"{name}-{part}"
            saved(folder, model, [2, 4])
            file = folder / "step-000004" / name
            content = bytearray(file.read_bytes())
            content[len(content) * part // 12] ^= 1 << part % 8
            file.write_bytes(content)
            found = checkpoint.latest(folder, "run")
            assert found is not None
            assert checkpoint.load(found, model).step == model.bias[0].item() in (2, 4)


def test_a_second_damaged_checkpoint_of_the_same_step_takes_the_place_of_the_first(bigram: Any, tmp_path: Path) -> None:
    for _ in range(2):
        saved(tmp_path, bigram(), [4])
        (tmp_path / "step-000004" / "state.json").unlink()
        assert checkpoint.latest(tmp_path, "run") is None
    assert names(tmp_path) == ["step-000004.corrupt"]


def test_what_a_kill_left_half_written_is_cleared_away(bigram: Any, tmp_path: Path) -> None:
    saved(tmp_path, bigram(), [2])
    (tmp_path / ".step-000004.abc.tmp").mkdir()
    assert checkpoint.latest(tmp_path, "run") is not None
    assert names(tmp_path) == ["step-000002"]


def test_a_checkpoint_of_another_run_is_a_data_error(bigram: Any, tmp_path: Path) -> None:
    saved(tmp_path, bigram(), [2], run="other")
    with pytest.raises(DataError, match="started with another config, data set, base or template"):
        checkpoint.latest(tmp_path, "run")


def test_a_checkpoint_of_another_model_is_a_data_error(bigram: Any, tmp_path: Path) -> None:
    saved(tmp_path, bigram(), [2])
    found = checkpoint.latest(tmp_path, "run")
    assert found is not None
    with pytest.raises(DataError, match="other weights than this model trains"):
        checkpoint.load(found, Dropped(bigram()))


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk looks like, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    bigram: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bigram(64)
    saved(tmp_path, model, [2, 4])
    with file_limit(4096):
        saved(tmp_path, model, [6, 8])
    assert names(tmp_path) == ["step-000004"], "the older one made room"
    assert capsys.readouterr().err.count("was not saved: a file is larger than the system allows") == 2
    found = checkpoint.latest(tmp_path, "run")
    assert found is not None
    assert checkpoint.load(found, model).step == 4
    saved(tmp_path, model, [10])
    assert names(tmp_path) == ["step-000004", "step-000010"]


def test_a_full_disk_takes_neither_the_best_nor_the_newest(bigram: Any, tmp_path: Path) -> None:
    model = bigram(64)
    saved(tmp_path, model, [2, 4, 6], best=2)
    assert names(tmp_path) == ["step-000002", "step-000004", "step-000006"]
    with file_limit(4096):
        saved(tmp_path, model, [8], best=2)
    assert names(tmp_path) == ["step-000002", "step-000006"]


def test_a_full_disk_takes_nothing_while_the_newest_is_not_whole(bigram: Any, tmp_path: Path) -> None:
    model = bigram(64)
    saved(tmp_path, model, [2, 4])
    (tmp_path / "step-000004" / "state.json").unlink()
    with file_limit(4096):
        saved(tmp_path, model, [6])
    assert names(tmp_path) == ["step-000002", "step-000004"]


@pytest.mark.parametrize("at", ["save_file", "write_json", "seal"])
def test_no_space_left_at_any_point_leaves_the_older_checkpoints(
    bigram: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    saved(tmp_path, bigram(), [2])

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, at, full)
    saved(tmp_path, bigram(), [4])
    assert names(tmp_path) == ["step-000002"]


def test_a_disk_that_plainly_has_no_room_is_not_written_to(
    bigram: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    saved(tmp_path, bigram(), [2])
    assert names(tmp_path) == []
    assert "warning: checkpoint at step 2 was not saved: the disk is full" in capsys.readouterr().err


def test_the_best_weights_come_back_at_the_end(bigram: Any, tmp_path: Path) -> None:
    model = bigram()
    saved(tmp_path, model, [2, 4], best=2)
    checkpoint.restore_best(tmp_path, model, loop.State(step=4, best_step=4))
    assert model.bias[0].item() == 4
    checkpoint.restore_best(tmp_path, model, loop.State(step=4, best_step=2))
    assert model.bias[0].item() == 2


def test_where_the_best_checkpoint_is_lost_the_last_weights_stay_and_it_is_said(
    bigram: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bigram()
    saved(tmp_path, model, [4])
    state = loop.State(step=4, best_step=2, best_val_loss=1.0, val_loss=1.5)
    checkpoint.restore_best(tmp_path, model, state)
    assert (model.bias[0].item(), state.best_step, state.best_val_loss) == (4, 4, 1.5)
    assert "the weights of step 4 are kept instead" in capsys.readouterr().err


def test_a_loss_that_is_not_a_number_is_null_on_disk(bigram: Any, tmp_path: Path) -> None:
    model = bigram()
    checkpoint.save(tmp_path, model, make(model), loop.State(step=1, val_loss=float("nan")), "run")
    assert json.loads((tmp_path / "step-000001" / "state.json").read_text())["state"]["val_loss"] is None
