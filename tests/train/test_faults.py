"""Nothing that a disk or a kill does to a checkpoint loses more than the steps since the one before.

A save, going back and the sealing of a run, with a fault at the k-th file operation, for every k: an error (EIO once,
or a disk that is full from then on), and a kill. Then bytes that change on the disk, a disk that really is full, and
random kills over whole runs. Kills and full disks need a process of their own: this file is also that program.
"""

import errno
import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork may not find threads

import pytest
import torch
from torch import nn

from tunesmith.core.artifact import open_artifact
from tunesmith.core.errors import ResourceError
from tunesmith.core.jsonl import write_json
from tunesmith.core.runlog import RunLog
from tunesmith.model.optim import Optimizers, adamw
from tunesmith.text.render import Example
from tunesmith.train import checkpoint, loop
from tunesmith.train.plan_batches import ExampleSource
from tunesmith.train.unfinished import SAME, finish, unfinished

RECEIPT: dict[str, Any] = dict.fromkeys(SAME, "")
TAKES_ROOM = ("create", "write", "fsync", "mkdir")


class Bigram(nn.Module):
    """The next token from the last one alone. It drops weights, so its random state matters."""

    def __init__(self, vocab: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.drop = nn.Parameter(torch.randn(vocab, vocab)), nn.Dropout(0.1)

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.drop(self.table)[input_ids])


def made(vocab: int = 8) -> tuple[Bigram, Optimizers]:
    model = Bigram(vocab)
    optimizers = Optimizers([adamw(model.parameters(), 0.1, 0.1)], lambda step: 1.0)
    model.table.grad = torch.ones_like(model.table)
    optimizers.step(0)
    return model, optimizers


def save(folder: Path, step: int, best: int = 2) -> bool:
    """A checkpoint whose weights all are its step."""
    model, optimizers = made()
    with torch.no_grad():
        model.table.fill_(step)
    return checkpoint.save(folder, model, optimizers, loop.State(step=step, best_step=best), "run")


def loaded(folder: Path) -> int:
    """The step that a resumed run would go on from, with its weights and optimizer found whole."""
    model, optimizers = made()
    found = checkpoint.latest(folder, "run")
    assert found is not None
    state = checkpoint.load(found, model, optimizers)
    assert model.table.unique().tolist() == [state.step]
    return state.step


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Tap:
    """Stands between the code and the file system, and tells `heard` of each operation that changes it, beforehand.

    A write is told of in its middle, so that a fault there leaves half a file; so is a file that safetensors writes.
    """

    def __init__(self, heard: Callable[[str], None]) -> None:
        self.heard = heard

    def install(self, patch: Callable[[Any, str, Any], None]) -> None:
        for name in ("fsync", "mkdir", "rename", "unlink", "rmdir"):
            patch(os, name, self.told(name, getattr(os, name)))
        patch(os, "close", self.closed(os.close))
        patch(io, "open", self.opened(io.open))
        patch(checkpoint, "save_file", self.saved(checkpoint.save_file))

    def told(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.heard(name)
            return real(*arguments, **more)

        return call

    def closed(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def close(number: int) -> None:
            real(number)  # as the system does: closed, whatever it then says
            self.heard("close")

        return close

    def opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        heard = self.heard

        class Tapped(io.FileIO):
            def write(self, data: Any) -> int:
                super().write(data[: len(data) // 2])
                heard("write")
                super().write(data[len(data) // 2 :])
                return len(data)

        def call(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, *rest: Any) -> Any:
            if not set(mode) & set("wa"):
                return real(file, mode, buffering, encoding, *rest)
            heard("create")
            buffer = io.BufferedWriter(Tapped(str(file), mode.replace("b", "")))
            return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, *rest)

        return call

    def saved(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(tensors: Any, path: Path) -> None:
            self.heard("create")
            real(tensors, path)
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            self.heard("write")
            path.write_bytes(whole)

        return call


def error_at(k: int, number: int) -> Callable[[str], None]:
    """EIO: once, at the k-th operation. ENOSPC: from then on, at each operation that takes room."""
    count = itertools.count(1)

    def heard(name: str) -> None:
        if number == errno.EIO and next(count) == k:
            raise OSError(errno.EIO, "Input/output error")
        if number == errno.ENOSPC and name in TAKES_ROOM and next(count) >= k:
            raise OSError(errno.ENOSPC, "No space left on device")

    return heard


def operations(action: Callable[[], object], patch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    with patch.context() as inner:
        Tap(seen.append).install(inner.setattr)
        action()
    return seen


# An error at the k-th operation of a save


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO once", "disk full from then on"])
def test_an_error_at_any_operation_of_a_save_costs_that_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for step in (2, 4, 6):
        save(tmp_path / "before", step)
    shutil.copytree(tmp_path / "before", tmp_path / "0")
    everything = operations(lambda: save(tmp_path / "0", 8), monkeypatch)
    assert {"create", "write", "fsync", "close", "mkdir", "rename", "unlink", "rmdir"} <= set(everything)
    outcomes = []
    for k in range(1, len(everything) + 1):
        folder = tmp_path / str(k)
        shutil.copytree(tmp_path / "before", folder)
        with monkeypatch.context() as patch:
            Tap(error_at(k, number)).install(patch.setattr)
            saved = save(folder, 8)
        assert (folder / "step-000002").is_dir(), "the best is never given up"
        assert not [name for name in names(folder) if ".tmp" in name and ".old." not in name], "a half-written file"
        step = loaded(folder)
        assert step == 8 if saved else step in (6, 8)
        outcomes.append(saved)
        assert save(folder, 10)
        assert loaded(folder) == 10
        assert names(folder)[:1] + names(folder)[-1:] == ["step-000002", "step-000010"]
        shutil.rmtree(folder)
    assert outcomes.count(False) > 20
    assert outcomes[-1], "what fails after the new one is safe costs nothing"


def test_a_disk_that_was_full_once_is_said_and_tried_again_after_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (2, 4, 6):
        save(tmp_path, step)
    full = iter([True, False])
    real = checkpoint.seal

    def seal(*arguments: Any) -> Any:
        if next(full):
            raise ResourceError("the disk is full")
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "seal", seal)
    assert save(tmp_path, 8)
    assert names(tmp_path) == ["step-000002", "step-000006", "step-000008"]
    assert capsys.readouterr().err == ""


# Bytes that change on the disk


def test_a_flipped_byte_anywhere_in_a_checkpoint_is_found_and_the_one_before_is_used(tmp_path: Path) -> None:
    """Where no loader reads (the manifest's time, blanks between words) it may stay: all else is as it was saved."""
    save(tmp_path, 4), save(tmp_path, 6)
    newest, aside = tmp_path / "step-000006", tmp_path / "step-000006.corrupt"
    unseen = 0
    for file in sorted(newest.iterdir()):
        whole = file.read_bytes()
        offsets = {*range(min(24, len(whole))), *range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}
        for n, offset in enumerate(sorted(offsets)):
            file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << n % 8]) + whole[offset + 1 :])
            step = loaded(tmp_path)
            if file.name != "manifest.json":
                assert step == 4, f"byte {offset} of {file.name}"
            unseen += step == 6
            if aside.is_dir():
                aside.rename(newest)
            file.write_bytes(whole)
    assert unseen < 20
    assert loaded(tmp_path) == 6


@pytest.mark.parametrize("key", ["step", "run"])
def test_a_manifest_that_says_another_step_or_run_is_corrupt(tmp_path: Path, key: str) -> None:
    save(tmp_path, 4), save(tmp_path, 6)
    path = tmp_path / "step-000006" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["facts"][key] = 5 if key == "step" else "another"
    path.write_text(json.dumps(manifest))
    assert loaded(tmp_path) == 4


# Kills, and a disk that is full: in a process of their own


def program(*arguments: str) -> Any:
    command = [sys.executable, "-X", "utf8", __file__, *arguments]
    if arguments[0] == "full":
        mount = 'mount -t tmpfs -o size=640k none "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, arguments[1], *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 32:  # mount's own code for "could not"
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_kill_at_any_operation_of_a_save_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    seen, said = program("save", str(tmp_path))
    assert len(seen) > 40
    assert seen == sorted(seen)
    assert set(seen) == {6, 8}
    assert "corrupt" not in said


def test_a_kill_at_any_operation_of_going_back_leaves_what_is_gone_back_to(tmp_path: Path) -> None:
    """The newest was saved after a skipped step. It is still there where the kill came before it was dropped."""
    seen, said = program("back", str(tmp_path))
    assert len(seen) > 5
    assert set(seen) == {6, 8}
    assert seen == sorted(seen, reverse=True)
    assert "corrupt" not in said


def test_a_kill_at_any_operation_of_sealing_leaves_a_run_or_its_checkpoints(tmp_path: Path) -> None:
    seen, _ = program("seal", str(tmp_path))
    assert len(seen) > 20
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"unfinished", "sealed"}


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting a small disk needs root")
def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_neither_the_run_nor_its_log(tmp_path: Path) -> None:
    (weights, undisturbed, kept, logged), said = program("full", str(tmp_path))
    assert weights == undisturbed
    assert said.count("was not saved: the disk is full") >= 2
    assert kept[-1] == "step-000014"
    assert not [name for name in kept if name.startswith(".")]
    assert logged == list(range(1, 15))


def test_random_kills_end_with_the_weights_of_an_undisturbed_run(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "bench" / "kills.py"
    command = [sys.executable, "-X", "utf8", str(script), "--kills", "6", "--out", str(tmp_path / "kills.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "kills.json").read_text())
    assert found["kills"] >= 6
    assert found["equal"] == found["runs"] >= 2


def killed_at(k: int, action: Callable[[], object]) -> bool:
    """Do it in a child that is killed at its k-th file operation. Returns whether it was."""
    child = os.fork()
    if child == 0:
        count = itertools.count(1)

        def heard(_: str) -> None:
            if next(count) == k:
                os.kill(os.getpid(), signal.SIGKILL)

        Tap(heard).install(setattr)
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_saves(root: Path) -> list[int]:
    for step in (2, 4, 6):
        save(root / "before", step)
    seen = []
    for k in itertools.count(1):
        folder = root / str(k)
        shutil.copytree(root / "before", folder)
        killed = killed_at(k, lambda folder=folder: save(folder, 8))  # type: ignore[misc]
        seen.append(loaded(folder))
        save(folder, 10)
        assert loaded(folder) == 10
        assert names(folder) == ["step-000002", f"step-{seen[-1]:06d}", "step-000010"]
        if not killed:
            return seen
    return seen


def kill_going_back(root: Path) -> list[int]:
    save(root / "before", 6)
    model, optimizers = made()
    with torch.no_grad():
        model.table.fill_(8)
    checkpoint.save(root / "before", model, optimizers, loop.State(step=8, skipped=3), "run")
    seen = []
    for k in itertools.count(1):
        folder = root / str(k)
        shutil.copytree(root / "before", folder)
        killed = killed_at(k, lambda folder=folder: checkpoint.roll_back(folder, *made(), "run"))  # type: ignore[misc]
        seen.append(loaded(folder))
        state = checkpoint.roll_back(folder, *made(), "run")
        assert state is not None
        assert state.step == 6
        assert names(folder) == ["step-000006"]
        if not killed:
            return seen
    return seen


def kill_sealing(root: Path) -> list[str]:
    seen = []
    for k in itertools.count(1):
        out = root / str(k) / "a"
        with unfinished(out, False) as work:
            save(work / "checkpoints", 6)
            (work / "model").mkdir()
            (work / "model" / "weights.bin").write_bytes(bytes(5000))
            write_json(work / "receipt.json", RECEIPT)
        killed = killed_at(k, lambda out=out: seal(out))  # type: ignore[misc]
        seen.append("sealed" if out.exists() else "unfinished")
        if not out.exists():
            with unfinished(out, True) as work:
                assert loaded(work / "checkpoints") == 6
                finish(work, out, RECEIPT)
        assert list(open_artifact(out, "run").manifest["files"]) == ["model/weights.bin", "receipt.json"]
        with unfinished(out.with_name("b"), False):  # the next run clears away what a killed one left
            pass
        assert [name for name in names(out.parent) if name not in (".a.lock", "b.partial")] == ["a"]
        if not killed:
            return seen
    return seen


def seal(out: Path) -> None:
    with unfinished(out, True) as work:
        finish(work, out, RECEIPT)


def train(folder: Path, before_step: Callable[[int], None]) -> str:
    """Fourteen steps with a checkpoint each other one. Returns the hash of the weights."""
    model = Bigram(96)  # a checkpoint of 130 kB
    optimizers = Optimizers([adamw(model.parameters(), 0.1, 0.1)], lambda step: 1.0)
    rows = [Example([n % 9, 3, 5, n % 7], [False, True, True, True], str(n)) for n in range(12)]
    log = RunLog(folder / "metrics.jsonl")

    def observe(state: loop.State, facts: dict[str, Any]) -> None:
        before_step(state.step + 1)
        facts["note"] = "x" * 3000  # a line does not fit into what is left of a page of the disk

    hooks = loop.Hooks(
        save=lambda state: checkpoint.save(folder, model, optimizers, state, "run"),
        observe=observe,
        log=log,
    )
    loop.fit(model, ExampleSource(rows, 4, 99, 0), optimizers, loop.Settings(14, save_every=2), hooks=hooks)
    log.close()
    return hashlib.sha256(model.table.detach().numpy().tobytes()).hexdigest()


def fill_disk(root: Path) -> list[Any]:
    """Train on a small disk that something else fills up before each of the steps 4 to 10, and then leaves."""
    filler = root / "filler"

    def before_step(step: int) -> None:
        if 4 <= step <= 10:
            with filler.open("ab", buffering=0) as file, suppress(OSError):
                while file.write(bytes(512)):
                    pass
        if step == 11:
            filler.unlink()

    weights = train(root, before_step)
    kept = [name for name in names(root) if name != "metrics.jsonl"]
    logged = [json.loads(line)["step"] for line in (root / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(root / "step-000014")
    for name in kept:
        shutil.rmtree(root / name, ignore_errors=True)
    return [weights, train(root, lambda step: None), kept, logged]


PROGRAMS: dict[str, Callable[[Path], Any]] = {
    "save": kill_saves,
    "back": kill_going_back,
    "seal": kill_sealing,
    "full": fill_disk,
}


def main(what: str, root: Path) -> Any:
    torch.set_num_threads(1)
    if what != "full":
        os.fsync = lambda _: None  # a kill takes nothing from the disk: no need to wait for it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return PROGRAMS[what](root)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
