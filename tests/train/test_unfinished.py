import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import artifact
from tunesmith.core.artifact import open_artifact
from tunesmith.core.errors import DataError, ResourceError, UsageError
from tunesmith.core.jsonl import write_json
from tunesmith.train import unfinished as room
from tunesmith.train.unfinished import check_same, finish, run_hash, unfinished

RECEIPT: dict[str, Any] = {"config": {"seed": 0}, "data_hash": "d", "base_hash": "b", "template_hash": "t", "steps": 3}


def begun(out: Path, *, resume: bool = False) -> Path:
    with unfinished(out, resume) as work:
        (work / "checkpoints" / "step-000001").mkdir(parents=True, exist_ok=True)
        return work


def test_a_run_lies_beside_its_name_until_it_is_sealed_without_checkpoints_and_lock(tmp_path: Path) -> None:
    with unfinished(tmp_path / "runs" / "a", False) as work:
        (work / "checkpoints").mkdir()
        (work / "metrics.jsonl").write_text("{}\n")
        assert work.name == "a.partial"
        run = finish(work, tmp_path / "runs" / "a", RECEIPT)
    assert open_artifact(run.path, "run").facts == RECEIPT
    assert sorted(p.name for p in run.path.iterdir()) == ["manifest.json", "metrics.jsonl", "receipt.json"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a"]


def test_a_run_that_saved_no_checkpoint_is_sealed_too(tmp_path: Path) -> None:
    with unfinished(tmp_path / "a", False) as work:
        assert finish(work, tmp_path / "a", RECEIPT).path == tmp_path / "a"


def test_a_failure_while_sealing_puts_the_checkpoints_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "a"
    begun(out)
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "fsync_path", full)
        with pytest.raises(ResourceError), unfinished(out, True) as work:
            finish(work, out, RECEIPT)
    assert (work / "checkpoints" / "step-000001").is_dir()
    with unfinished(out, True) as work:
        finish(work, out, RECEIPT)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_kill_while_sealing_costs_no_checkpoint(tmp_path: Path) -> None:
    work = begun(tmp_path / "a")
    (work / "checkpoints").rename(room._aside(tmp_path / "a"))
    with unfinished(tmp_path / "a", True) as again:
        assert (again / "checkpoints" / "step-000001").is_dir()


def test_a_full_disk_anywhere_inside_is_a_resource_error_and_loses_nothing(tmp_path: Path) -> None:
    work = begun(tmp_path / "a")
    with pytest.raises(ResourceError, match="the disk is full"), unfinished(tmp_path / "a", True):
        raise OSError(28, "No space left on device")
    assert (work / "checkpoints" / "step-000001").is_dir()


def test_a_run_is_held_by_one_process_and_the_other_is_told_which(tmp_path: Path) -> None:
    with (
        unfinished(tmp_path / "a", False),
        pytest.raises(UsageError, match=rf"another process is training a: process {os.getpid()}, since 20\d\d-"),
        unfinished(tmp_path / "a", True),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.partial"], "the lease goes with its holder"


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib, tunesmith.train.unfinished as room\n"
    code += "with room.unfinished(pathlib.Path(sys.argv[1]), False): print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {holder.pid}, since"), unfinished(tmp_path / "a", True):
            pass
        holder.kill()
    assert (tmp_path / ".a.lock").is_file()
    with unfinished(tmp_path / "a", True) as work:
        assert work.is_dir()


def test_who_waited_for_a_lease_that_its_holder_removed_does_not_hold_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = room._lock

    def late(file: Any, name: str) -> None:
        (tmp_path / ".a.lock").unlink()
        real(file, name)

    monkeypatch.setattr(room, "_lock", late)
    with pytest.raises(UsageError, match="another process has just left a"), unfinished(tmp_path / "a", False):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def none(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(room.fcntl, "flock", none)
    with unfinished(tmp_path / "a", False):
        assert "warning: this file system has no locks" in capsys.readouterr().err


def test_what_a_kill_left_beside_a_sealed_run_is_cleared_away_and_what_belongs_to_another_stays(tmp_path: Path) -> None:
    with unfinished(tmp_path / "a", False) as work:
        finish(work, tmp_path / "a", RECEIPT)
    for name in (".a.checkpoints", ".b.checkpoints"):
        (tmp_path / name / "step-000001").mkdir(parents=True)
    (tmp_path / ".a.lock").touch()
    begun(tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.checkpoints", "a", "c.partial"]


def test_what_makes_two_runs_the_same_is_in_the_hash() -> None:
    assert run_hash(RECEIPT) == run_hash(RECEIPT | {"steps": 4})
    changed = [RECEIPT | {key: {"other": 1}} for key in room.SAME]
    assert len({run_hash(RECEIPT), *map(run_hash, changed)}) == 5


def test_what_differs_from_the_run_that_is_resumed_is_named(tmp_path: Path) -> None:
    check_same(tmp_path, RECEIPT)  # nothing was begun
    write_json(tmp_path / "receipt.json", RECEIPT)
    check_same(tmp_path, RECEIPT | {"steps": 4})
    with pytest.raises(DataError, match="settings: seed was 0 and is 1, the base is another one"):
        check_same(tmp_path, RECEIPT | {"config": {"seed": 1}, "base_hash": "c"})
    told = RECEIPT | {"config": RECEIPT["config"] | {"trackers": ["wandb"]}}
    check_same(tmp_path, told)  # who is told changes no weight
    assert run_hash(told) == run_hash(RECEIPT)
    (tmp_path / "receipt.json").write_text('{"config": {"se')
    check_same(tmp_path, RECEIPT)  # killed while it was written: nothing was trained yet
