"""Old or new, never a mix: an artifact is written while the file system fails at its k-th call, for every k.

Four kinds of failure: an error (EIO, or a disk that is full from then on), a kill (SIGKILL in a child process), a power
cut (every state that the calls before it allow the disk to be in: what was not fsynced may be lost), and a disk that
really is full. Kills and full disks need a process of their own: this file is also that program.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import artifacts, open_artifact, seal, writing
from tunesmith.core.errors import ResourceError, TunesmithError
from tunesmith.core.jsonl import write_json, write_rows
from tunesmith.core.records import pair

Call = tuple[Any, ...]  # (name, path, more)
TAKES_ROOM = {"mkdir", "create", "write", "fsync"}


def write_artifact(final: Path) -> None:
    """An artifact with files in two folders and of more than one write, in a folder that is not there yet."""
    with writing(final) as work:
        write_rows(work / "rows.jsonl", [pair("Q" * 5000, "A" * 5000), pair("a", "b")])
        (work / "model").mkdir()
        (work / "model" / "weights.bin").write_bytes(b"\x01\x02" * 10_000)
        write_json(work / "receipt.json", {"rows": 2})
        seal(work, final, "run", {"rows": 2})


def state(final: Path) -> str:
    """ "old" (nothing there) or "new" (whole); anything between raises."""
    if not final.exists():
        assert artifacts(final.parent) == []
        return "old"
    assert sorted(open_artifact(final, "run").manifest["files"]) == ["model/weights.bin", "receipt.json", "rows.jsonl"]
    assert artifacts(final.parent) == [final]
    return "new"


class Tap:
    """Stands between Python and the file system: tells `heard` of every call that changes it, before it is made.

    A write is told of in its middle, so that a fault there leaves half of it.
    """

    def __init__(self, heard: Callable[[Call], None]) -> None:
        self.heard = heard
        self.real_open, self.real_os = (
            io.open,
            {name: getattr(os, name) for name in ("open", "fsync", "mkdir", "rename")},
        )
        self.paths: dict[int, str] = {}

    def install(self, patch: Callable[[Any, str, Any], None]) -> None:
        patch(io, "open", self.open_file)
        for name in self.real_os:
            patch(os, name, getattr(self, name))

    def open_file(self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, *rest: Any) -> Any:
        if "r" in mode:
            return self.real_open(file, mode, buffering, encoding, *rest)
        self.heard(("create", str(file)))
        heard = self.heard

        class Tapped(io.FileIO):
            def write(self, data: Any) -> int:
                half = len(data) // 2
                super().write(data[:half])
                heard(("write", str(file), bytes(data[:half])))
                super().write(data[half:])
                heard(("write", str(file), bytes(data[half:])))
                return len(data)

        buffer = io.BufferedWriter(Tapped(str(file), mode.replace("b", "")))
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, *rest)

    def open(self, path: Any, *rest: Any, **more: Any) -> int:
        handle: int = self.real_os["open"](path, *rest, **more)
        self.paths[handle] = str(path)
        return handle

    def fsync(self, handle: int) -> None:
        self.heard(("fsync", self.paths[handle]))
        self.real_os["fsync"](handle)

    def mkdir(self, path: Any, *rest: Any) -> None:
        self.heard(("mkdir", str(path)))
        self.real_os["mkdir"](path, *rest)

    def rename(self, old: Any, new: Any) -> None:
        self.heard(("rename", str(old), str(new)))
        self.real_os["rename"](old, new)


# An error at the k-th call


@pytest.mark.parametrize("kind", ["io error once", "disk full from then on"])
def test_an_error_at_any_call_leaves_old_or_new_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    seen = []
    for k in itertools.count(1):
        final = tmp_path / str(k) / "runs" / "run-1"
        final.parents[1].mkdir()
        error = failing(final, monkeypatch, kind, k)
        assert [path.name for path in final.parent.glob("*")] in ([], ["run-1"])
        seen.append(state(final))
        if error is None:
            break
        if kind == "io error once":
            assert isinstance(error, OSError)
        else:
            assert isinstance(error, ResourceError)
            assert error.exit_code == 5
            assert f"MB free where {final} is written" in str(error)
        if seen[-1] == "old":
            write_artifact(final)
            assert state(final) == "new"
    assert len(seen) > 20
    assert seen == sorted(seen, reverse=True)  # once it is new, it stays new
    assert seen[-1] == "new"


def failing(final: Path, monkeypatch: pytest.MonkeyPatch, kind: str, k: int) -> Exception | None:
    """Write with the k-th call (that takes room) failing, and return what came of it."""
    count = 0

    def heard(call: Call) -> None:
        nonlocal count
        count += kind == "io error once" or call[0] in TAKES_ROOM
        if kind == "io error once" and count == k:
            count += 1
            raise OSError(errno.EIO, "Input/output error")
        if kind != "io error once" and count >= k and call[0] in TAKES_ROOM:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        Tap(heard).install(patch.setattr)
        try:
            write_artifact(final)
        except (OSError, TunesmithError) as error:
            return error
    return None


# A power cut after the k-th call


class Disk:
    """What a disk may hold after a power cut: for each file its fsynced bytes or more, for each folder its fsynced
    entries or all of them (the model of Pillai et al., OSDI 2014)."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.folders: dict[int, dict[str, int]] = {0: {}}
        self.safe_folders: dict[int, dict[str, int]] = {0: {}}
        self.files: dict[int, bytes] = {}
        self.safe_files: dict[int, bytes] = {}
        self.numbers = itertools.count(1)

    def find(self, path: str) -> int:
        number = 0
        for name in Path(path).relative_to(self.root).parts:
            number = self.folders[number][name]
        return number

    def parent(self, path: str) -> dict[str, int]:
        return self.folders[self.find(str(Path(path).parent))]

    def apply(self, call: Call) -> None:
        name, path, *more = call
        if name in ("mkdir", "create"):
            number = self.parent(path)[Path(path).name] = next(self.numbers)
            if name == "mkdir":
                self.folders[number], self.safe_folders[number] = {}, {}
            else:
                self.files[number], self.safe_files[number] = b"", b""
        elif name == "write":
            self.files[self.find(path)] += more[0]
        elif name == "rename":
            number = self.parent(path).pop(Path(path).name)
            self.parent(more[0])[Path(more[0]).name] = number
        elif name == "fsync":
            number = self.find(path)
            if number in self.files:
                self.safe_files[number] = self.files[number]
            else:
                self.safe_folders[number] = dict(self.folders[number])

    def images(self) -> Iterator[dict[str, bytes | None]]:
        """Each state that the disk may be in: path -> bytes, or None for a folder."""
        dirty = [number for number in self.folders if self.folders[number] != self.safe_folders[number]]
        zeros = {number: bytes(len(data)) for number, data in self.files.items()}
        for kept in itertools.product([False, True], repeat=len(dirty)):
            folders = self.safe_folders | {n: self.folders[n] for n, keep in zip(dirty, kept, strict=True) if keep}
            for data in (self.files, self.safe_files, self.safe_files | self.unsafe(zeros)):
                yield dict(self.walk(0, "", folders, data))

    def unsafe(self, data: dict[int, bytes]) -> dict[int, bytes]:
        return {number: data[number] for number in self.files if self.files[number] != self.safe_files[number]}

    def walk(
        self, folder: int, place: str, folders: dict[int, dict[str, int]], data: dict[int, bytes]
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, number in folders[folder].items():
            if number in data:
                yield place + name, data[number]
            else:
                yield place + name, None
                yield from self.walk(number, f"{place}{name}/", folders, data)


def record(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    calls: list[Call] = []
    with monkeypatch.context() as patch:
        Tap(calls.append).install(patch.setattr)
        write_artifact(root / "runs" / "run-1")
    return calls


def after_a_cut(image: dict[str, bytes | None], root: Path) -> str:
    """Lay the image out as files and say what is there: old, new or broken."""
    for name, data in image.items():
        if data is None:
            (root / name).mkdir(parents=True)
        else:
            (root / name).write_bytes(data)
    try:
        return state(root / "runs" / "run-1")
    except (TunesmithError, AssertionError):
        return "broken"
    finally:
        shutil.rmtree(root / "runs", ignore_errors=True)


def outcomes(calls: list[Call], root: Path, scratch: Path) -> list[set[str]]:
    """For each number of calls made before the cut, what may be there after it."""
    disk, found = Disk(root), []
    known: dict[tuple[tuple[str, bytes | None], ...], str] = {}
    for call in calls:
        disk.apply(call)
        images = [tuple(sorted(image.items())) for image in disk.images()]
        for image in images:
            if image not in known:
                known[image] = after_a_cut(dict(image), scratch)
        found.append({known[image] for image in images})
    return found


def test_a_power_cut_after_any_call_leaves_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    calls = record(tmp_path / "root", monkeypatch)
    found = outcomes(calls, tmp_path / "root", tmp_path)
    assert set().union(*found) == {"old", "new"}
    assert found[0] == {"old"}
    assert found[-1] == {"new"}, "it said that it was done, and a power cut can still take it away"


def is_file(call: Call) -> bool:
    return Path(call[1]).suffix in (".jsonl", ".bin", ".json")


@pytest.mark.parametrize(
    ("forgotten", "outcome"),
    [
        (is_file, "broken"),  # the bytes of the files
        (lambda call: call[1].endswith(".tmp"), "broken"),  # the names in the folder
        (lambda call: call[1].endswith("/model"), "broken"),  # the names in a folder below it
        (lambda call: call[1].endswith("/runs"), "old"),  # the new name of the folder
        (lambda call: call[1].endswith("/root"), "old"),  # the folder that it stands in
    ],
    ids=["files", "folder", "inner folder", "parent", "grandparent"],
)
def test_without_any_one_of_its_fsyncs_it_would_not_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: Callable[[Call], bool], outcome: str
) -> None:
    """That the test above can fail, and that no fsync is there for nothing."""
    (tmp_path / "root").mkdir()
    calls = record(tmp_path / "root", monkeypatch)
    fewer = [call for call in calls if not (call[0] == "fsync" and forgotten(call))]
    assert len(fewer) < len(calls)
    assert outcome in outcomes(fewer, tmp_path / "root", tmp_path)[-1]


# A kill at the k-th call, and a disk that is full: in a process of their own


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-X", "utf8", __file__, *arguments]


def run(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 32:  # mount's own code for "could not"
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kill_at_any_call_leaves_old_or_new_and_the_next_run_succeeds(tmp_path: Path) -> None:
    seen = run(program("kill", str(tmp_path)))
    assert len(seen) > 20
    assert seen == sorted(seen, reverse=True)
    assert (seen[0], seen[-1]) == ("old", "new")


def test_a_file_larger_than_the_system_allows_is_a_resource_error(tmp_path: Path) -> None:
    code, text, left = run(program("limit", str(tmp_path)))["python"]
    assert code == 5
    assert text.startswith("a file is larger than the system allows: ")
    assert f" MB free where {tmp_path}/runs/python is written" in text
    assert left == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting a small disk needs root")
def test_a_disk_that_is_full_is_a_resource_error_whoever_writes(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'
    ends = run(["unshare", "--mount", "sh", "-c", mount, str(tmp_path), *program("full", str(tmp_path))])
    assert set(ends) == {"python", "safetensors", "tokenizers"}
    for name, (code, text, left) in ends.items():
        assert code == 5
        assert text.startswith(f"the disk is full: 0 MB free where {tmp_path}/runs/{name} is written")
        assert left == []


def kill(root: Path) -> list[str]:
    seen = []
    for k in itertools.count(1):
        final = root / str(k) / "run-1"
        child = os.fork()
        if child == 0:
            calls: list[Call] = []

            def heard(call: Call, calls: list[Call] = calls, k: int = k) -> None:
                calls.append(call)
                if len(calls) == k:
                    os.kill(os.getpid(), signal.SIGKILL)

            Tap(heard).install(setattr)
            write_artifact(final)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        seen.append(state(final))
        if status == 0:
            return seen
        if seen[-1] == "old":
            write_artifact(final)
            assert state(final) == "new"
    return seen


def save_with_python(folder: Path) -> None:
    (folder / "a.bin").write_bytes(bytes(200_000))


def save_with_safetensors(folder: Path) -> None:
    import numpy
    from safetensors.numpy import save_file

    save_file({"a": numpy.zeros(200_000)}, folder / "a.safetensors")


def save_with_tokenizers(folder: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({f"{n:020}": n for n in range(5000)}, "0" * 20)).save(str(folder / "a.json"))


def full(root: Path, *savers: Callable[[Path], None]) -> dict[str, Any]:
    """Exit code, message and what is left, of each way to write more than there is room for."""
    ends = {}
    for save in savers:
        final = root / "runs" / save.__name__.removeprefix("save_with_")
        try:
            with writing(final) as work:
                save(work)
                seal(work, final, "run", {})
        except TunesmithError as error:
            ends[final.name] = (error.exit_code, str(error), [path.name for path in final.parent.iterdir()])
    return ends


def main(what: str, root: Path) -> Any:
    if what == "kill":
        return kill(root)
    if what == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return full(root, save_with_python)
    return full(root, save_with_python, save_with_safetensors, save_with_tokenizers)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
