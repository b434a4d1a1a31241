from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.artifact import (
    Artifact,
    artifacts,
    disk_errors,
    file_hash,
    make_folder,
    open_artifact,
    seal,
    writing,
)
from tunesmith.core.errors import DataError, ResourceError, UsageError

FILES = {"a.txt": b"one", "model/b.bin": b"\x00" * 5000, "model/deep/c.txt": b""}


def fill(work: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(data)


def make(final: Path, files: dict[str, bytes] | None = None, kind: str = "run", **facts: Any) -> Artifact:
    with writing(final) as work:
        fill(work, FILES if files is None else files)
        return seal(work, final, kind, facts)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


def test_what_was_sealed_opens_with_all_that_was_said_of_it(tmp_path: Path) -> None:
    final = tmp_path / "runs" / "run-1"
    sealed = make(final, seconds=3, parents=["abc"])
    opened = open_artifact(final, "run")
    assert opened == sealed
    assert (opened.name, opened.kind, opened.path) == ("run-1", "run", final)
    assert opened.facts == {"seconds": 3, "parents": ["abc"]}
    assert everything(tmp_path / "runs") == sorted(
        ["run-1", *(f"run-1/{n}" for n in [*FILES, "manifest.json", "model", "model/deep"])]
    )


def test_the_manifest_holds_the_hash_and_size_of_every_file(tmp_path: Path) -> None:
    make(tmp_path / "x")
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in FILES.items()
    }
    assert file_hash(tmp_path / "x" / "a.txt") == hashlib.sha256(b"one").hexdigest()


def test_an_artifact_of_no_files_is_an_artifact(tmp_path: Path) -> None:
    assert open_artifact(make(tmp_path / "x", {}).path).manifest["files"] == {}


@settings(deadline=None)  # files, on a machine that others use
@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=2), st.binary(max_size=9), max_size=3),
    st.dictionaries(st.text("ab", min_size=1, max_size=2), st.binary(max_size=9), max_size=3),
)
def test_two_artifacts_have_one_hash_exactly_when_their_files_are_the_same(
    shelf: Path, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    hashes = []
    for files, note in ((one, "first"), (other, "second")):
        hashes.append(make(shelf / "x", files, note=note).hash)
        shutil.rmtree(shelf / "x")
    assert (hashes[0] == hashes[1]) == (one == other)


@pytest.mark.parametrize("name", list(FILES))
def test_a_missing_file_is_found(tmp_path: Path, name: str) -> None:
    make(tmp_path / "x")
    (tmp_path / "x" / name).unlink()
    with pytest.raises(DataError) as error:
        open_artifact(tmp_path / "x")
    assert str(error.value) == f"{tmp_path}/x/{name} is missing\n  next: make x again"


@pytest.mark.parametrize(
    ("name", "data"), [("a.txt", b"onE"), ("a.txt", b""), ("model/deep/c.txt", b" "), ("model/b.bin", b"\x00" * 4999)]
)
def test_a_changed_file_is_found(tmp_path: Path, name: str, data: bytes) -> None:
    make(tmp_path / "x")
    (tmp_path / "x" / name).write_bytes(data)
    with pytest.raises(DataError) as error:
        open_artifact(tmp_path / "x")
    assert str(error.value) == f"{tmp_path}/x/{name} has changed since it was written\n  next: make x again"


@settings(deadline=None)  # files, on a machine that others use
@given(place=st.integers(0, 4999), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found(shelf: Path, place: int, bit: int) -> None:
    path = shelf / "flip"
    if not path.exists():
        make(path)
    data = bytearray(FILES["model/b.bin"])
    data[place] ^= 1 << bit
    (path / "model" / "b.bin").write_bytes(data)
    with pytest.raises(DataError, match="has changed"):
        open_artifact(path)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "x", kind="set")
    with pytest.raises(DataError) as error:
        open_artifact(tmp_path / "x", "run")
    assert str(error.value) == f"{tmp_path}/x is a set\n  expected: a run"


@pytest.mark.parametrize("place", ["nowhere", "empty", "file"])
def test_a_place_without_a_manifest_is_no_artifact(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError) as error:
        open_artifact(tmp_path / place, "run")
    assert str(error.value) == (
        f"{tmp_path}/{place} is not an artifact: it has no manifest.json\n  expected: a finished run"
    )


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ("", "not valid JSON"),
        ('{"format": 1', "not valid JSON"),
        ("[]", "not a manifest of Tunesmith"),
        ('{"kind": "run"}', "not a manifest of Tunesmith"),
        (
            '{"format": 2, "kind": "run", "created": "", "facts": {}, "files": {}}',
            "an artifact of format 2\n  expected: format 1\n  next: use the version of Tunesmith that made it",
        ),
    ],
)
def test_a_damaged_or_foreign_manifest_is_an_error_and_not_in_the_list(
    tmp_path: Path, manifest: str, complaint: str
) -> None:
    make(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_text(manifest)
    with pytest.raises(DataError) as error:
        open_artifact(tmp_path / "x", "run")
    assert str(error.value).startswith(f"{tmp_path}/x/manifest.json")
    assert complaint in str(error.value)
    assert artifacts(tmp_path) == []


def take_as_folder(path: Path) -> None:
    path.mkdir()


def take_as_link(path: Path) -> None:
    path.symlink_to("nowhere")


def take_as_full_folder(path: Path) -> None:
    path.mkdir()
    (path / "precious").touch()


TAKERS = [Path.touch, take_as_folder, take_as_link, take_as_full_folder]


@pytest.mark.parametrize("take", TAKERS)
def test_a_taken_name_is_an_error_before_any_work(tmp_path: Path, take: Any) -> None:
    take(tmp_path / "x")
    before = everything(tmp_path)
    with pytest.raises(UsageError) as error, writing(tmp_path / "x"):
        pytest.fail("the work began")
    assert str(error.value) == f"{tmp_path}/x exists\n  next: choose another name, or remove it first"
    assert everything(tmp_path) == before


@pytest.mark.parametrize("take", TAKERS)
def test_a_name_taken_while_the_work_went_on_is_an_error_and_is_left_alone(tmp_path: Path, take: Any) -> None:
    def work() -> None:
        with writing(tmp_path / "x") as folder:
            take(tmp_path / "x")
            seal(folder, tmp_path / "x", "run", {})

    with pytest.raises(UsageError, match="x exists"):
        work()
    assert everything(tmp_path) in (["x"], ["x", "x/precious"])


@pytest.mark.parametrize("take", [Path.touch, take_as_link, take_as_full_folder])
def test_a_name_taken_at_the_last_moment_is_an_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: Any
) -> None:
    rename = os.rename

    def late(old: Path, new: Path) -> None:
        take(new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(UsageError, match="x exists"):
        make(tmp_path / "x")
    assert everything(tmp_path) in (["x"], ["x", "x/precious"])


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whatever_fails_leaves_nothing_behind(tmp_path: Path, kind: type[BaseException]) -> None:
    def half() -> None:
        with writing(tmp_path / "x") as work:
            fill(work, FILES)
            raise kind

    with pytest.raises(kind):
        half()
    assert everything(tmp_path) == []


def test_work_that_is_not_sealed_leaves_nothing_behind(tmp_path: Path) -> None:
    with writing(tmp_path / "x") as work:
        fill(work, FILES)
    assert everything(tmp_path) == []


def test_what_is_being_written_is_not_in_the_list(tmp_path: Path) -> None:
    make(tmp_path / "old")
    with writing(tmp_path / "new") as work:
        shutil.copy(tmp_path / "old" / "manifest.json", work)
        shutil.copytree(tmp_path / "old", tmp_path / "run-1.partial")
        assert artifacts(tmp_path) == [tmp_path / "old"]
    assert artifacts(tmp_path / "nowhere") == []


def test_a_number_that_is_none_cannot_be_sealed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        make(tmp_path / "x", loss=float("nan"))
    assert everything(tmp_path) == []


class RustError(Exception):
    """What safetensors and tokenizers raise: no OSError."""


FULL = [
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
    (OSError(errno.EFBIG, "File too large"), "a file is larger than the system allows"),
    (RustError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
]


@pytest.mark.parametrize(("cause", "what"), FULL)
def test_a_full_disk_is_an_error_that_says_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception, what: str
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_234_400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError) as error, writing(tmp_path / "x"):
        raise cause
    assert str(error.value) == (
        f"{what}: 1,234 MB free where {tmp_path}/x is written\n  next: free some space and run the same command again"
    )
    assert error.value.exit_code == 5
    assert error.value.__cause__ is cause
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    "other", [PermissionError(errno.EACCES, "Permission denied"), ValueError("28"), RustError("(os error 13)")]
)
def test_every_other_error_passes_as_it_is(tmp_path: Path, other: Exception) -> None:
    with pytest.raises(type(other)) as error, disk_errors(tmp_path):
        raise other
    assert error.value is other


def test_a_full_disk_is_measured_at_the_nearest_folder_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResourceError, match="MB free where a/b/c is written"), disk_errors(Path("a/b/c")):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_is_made_with_all_above_it_and_may_be_there(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert everything(tmp_path) == ["a", "a/b"]
