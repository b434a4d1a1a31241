import gzip
import io
import sys
import zipfile
from pathlib import Path

import pytest

from tunesmith.collect.unpack import Blob, Limits, blob_of, chat_root, memory, unpack
from tunesmith.core.errors import DataError, UsageError


def read(blob: Blob) -> bytes:
    return b"".join(blob.chunks())


def zipped(*names: str, data: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return out.getvalue()


def test_a_plain_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (blob,) = unpack(blob_of(tmp_path / "a", "name"))
    assert (blob.name, read(blob), blob.path) == ("name", b"abc", tmp_path / "a")


def test_a_stream_can_be_opened_again_and_again() -> None:
    (blob,) = unpack(memory(gzip.compress(gzip.compress(b"abc" * 10_000)), "f"))
    assert [read(blob), read(blob), blob.head(3)] == [b"abc" * 10_000, b"abc" * 10_000, b"abc"]


def test_members_are_named_after_their_archive_and_junk_is_told() -> None:
    found = list(unpack(memory(zipped("a.csv", "d/", "d/b.csv", "__MACOSX/._a.csv", "d/.hidden"), "z.zip")))
    assert [blob.name for blob in found] == ["z.zip/a.csv", "z.zip/d/b.csv"]
    assert [blob.skipped for blob in found] == [("__MACOSX/._a.csv", "d/.hidden"), ()]


@pytest.mark.parametrize(
    ("data", "limits", "words"),
    [
        (gzip.compress(b"\0" * 10_000), Limits(ratio=10, free=1000), "far more than such a file should"),
        (gzip.compress(b"\0" * 10_000), Limits(total=5000), "far more than such a file should"),
        (zipped("a", "b", data=b"\0" * 10_000), Limits(total=15_000), "far more than such a file should"),
        (zipped("a", "b", "c"), Limits(members=2), "3 members, at most 2"),
        (gzip.compress(gzip.compress(b"x")), Limits(layers=1), "more than 1 layers"),
        (zipped("a/../../b"), Limits(), "points out of the archive"),
        (zipped("..\\b"), Limits(), "points out of the archive"),
        (zipped("C:/b"), Limits(), "points out of the archive"),
    ],
    ids=["ratio", "total", "total_of_members", "members", "layers", "parent", "backslash", "drive"],
)
def test_each_limit_stops_what_is_beyond_it(data: bytes, limits: Limits, words: str) -> None:
    with pytest.raises(DataError, match=words):
        [read(blob) for blob in unpack(memory(data, "f"), limits)]


def test_what_is_within_the_limits_is_read_to_its_last_byte() -> None:
    (blob,) = unpack(memory(gzip.compress(b"\0" * 10_000), "f"), Limits(ratio=1, free=10_000))
    assert len(read(blob)) == 10_000


def test_an_encrypted_member_is_named() -> None:
    data = bytearray(zipped("secret.csv"))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match=r"'secret.csv' is encrypted"):
        list(unpack(memory(bytes(data), "f")))


def test_zstandard_is_read_with_its_extra() -> None:
    zstandard = pytest.importorskip("zstandard", reason="needs the extra zstd")
    data = zstandard.ZstdCompressor().compress(b"abc" * 1000)
    (blob,) = unpack(memory(data * 2, "f"))
    assert read(blob) == b"abc" * 2000
    with pytest.raises(DataError, match="damaged"):
        read(next(unpack(memory(data[:10] + b"\xff" * 20, "f"))))


def test_zstandard_without_its_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UsageError, match=r"pip install \"tunesmith\[zstd\]\""):
        list(unpack(memory(b"\x28\xb5\x2f\xfdrest", "f")))


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["users.json", "channels.json"], ""),
        (["x/users.json", "x/dms.json", "x/a/1.json"], "x/"),
        (["users.json", "faq.csv"], None),
        ([], None),
    ],
)
def test_a_chat_export_is_told_by_its_lists(names: list[str], root: str | None) -> None:
    assert chat_root(names) == root
