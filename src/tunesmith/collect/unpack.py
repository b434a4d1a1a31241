"""Compressed files and archives as streams: nothing is written to disk, and no stream may swell beyond its limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shlex
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Protocol

from tunesmith.core.errors import DataError, UsageError

WORKBOOK = "[Content_Types].xml"  # the member that every Office file has
ZSTD = b"\x28\xb5\x2f\xfd"
JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what archivers and desktops leave
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


class Closes(Protocol):
    def close(self) -> None: ...


@dataclass(frozen=True)
class Limits:
    """What an archive may become: bytes out for each byte in, but at least `free`; in all; members; layers."""

    ratio: int = 200
    free: int = 64 << 20
    total: int = 64 << 30
    members: int = 100_000
    layers: int = 3

    def allowed(self, size: int) -> int:
        return min(self.total, max(self.free, self.ratio * size))


@dataclass(frozen=True)
class Blob:
    """Bytes with a name, which can be opened again and again. `size`: bytes of the outermost file.

    `path`: where exactly these bytes lie, when they do. `typed`: the outermost file, as it is named to a shell.
    `skipped`: members of the archive that were passed over.
    """

    name: str
    open: Callable[[], IO[bytes]]
    size: int
    path: Path | None = None
    typed: str = ""
    chat: bool = False
    skipped: tuple[str, ...] = ()

    def head(self, count: int = 4096) -> bytes:
        with self.open() as stream:
            return stream.read(count)

    def chunks(self) -> Iterator[bytes]:
        with self.open() as stream:
            while chunk := stream.read(1 << 20):
                yield chunk


def blob_of(path: Path, name: str) -> Blob:
    return Blob(name, lambda: path.open("rb"), path.stat().st_size, path, shlex.quote(str(path)))


def memory(data: bytes, name: str) -> Blob:
    return Blob(name, lambda: io.BytesIO(data), len(data), typed=shlex.quote(name))


class _Bounded(io.RawIOBase):
    """A stream that ends in a DataError where it is damaged, or longer than it may be. Closes all that it lies on."""

    def __init__(self, inner: IO[bytes], blob: Blob, allowed: int, under: Sequence[Closes] = ()) -> None:
        self._inner, self._blob, self._left, self._under = inner, blob, allowed, under

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except _broken() as error:
            raise _damaged(self._blob.name, error) from error
        self._left -= len(data)
        if self._left < 0:
            raise _bomb(self._blob.name, "it unpacks to far more than such a file should")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        for stream in (self._inner, *self._under):
            stream.close()
        super().close()


def _broken() -> tuple[type[Exception], ...]:
    """What the decompressors raise on damaged bytes; Zstandard's own error where its package is loaded."""
    zstandard = sys.modules.get("zstandard")
    return (*BROKEN, zstandard.ZstdError) if zstandard else BROKEN


def _damaged(name: str, error: Exception) -> DataError:
    what = f"the archive is damaged: {error or type(error).__name__}"
    return DataError(what, where=name, fix="fetch or pack the file again")


def _bomb(name: str, what: str) -> DataError:
    return DataError(f"not unpacked: {what}", where=name, fix="if it is sound, unpack it yourself and name its files")


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    from zstandard import ZstdDecompressor

    return ZstdDecompressor(max_window_size=1 << 27).stream_reader(stream, read_across_frames=True)


PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {  # first bytes -> how a stream of them is opened
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
    ZSTD: _zstd,
}


def unpack(blob: Blob, limits: Limits = Limits(), layer: int = 0) -> Iterator[Blob]:
    """The files in a file: itself, what a compressed file holds, or the members of a zip; a chat export is one.

    Raises DataError on what is damaged, encrypted, too large, too deep, or named to climb out of its folder.
    """
    head = blob.head(8)
    packed = next((PACKED[magic] for magic in PACKED if head.startswith(magic)), None)
    if packed is not None:
        if layer >= limits.layers:
            raise _bomb(blob.name, f"more than {limits.layers} layers of compression")
        if packed is _zstd and find_spec("zstandard") is None:
            raise UsageError(f"{blob.name} is a Zstandard archive", fix='pip install "tunesmith[zstd]"')
        yield from unpack(_inflated(blob, packed, limits), limits, layer + 1)
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _members(blob, limits, layer)
    else:
        yield blob


def _inflated(blob: Blob, opener: Callable[[IO[bytes]], Any], limits: Limits) -> Blob:
    def open_inflated() -> IO[bytes]:
        raw = blob.open()
        return _bounded(opener(raw), blob, limits.allowed(blob.size), [raw])

    return Blob(blob.name, open_inflated, blob.size, typed=blob.typed, skipped=blob.skipped)


def _bounded(stream: Any, blob: Blob, allowed: int, under: Sequence[Closes]) -> IO[bytes]:
    return io.BufferedReader(_Bounded(stream, blob, allowed, under), 1 << 16)


@contextmanager
def open_zip(blob: Blob) -> Iterator[zipfile.ZipFile]:
    """A zip archive. Raises DataError where its list of members is damaged."""
    with blob.open() as raw:
        try:
            archive = zipfile.ZipFile(raw)
        except (*BROKEN, ValueError) as error:
            raise _damaged(blob.name, error) from error
        with archive:
            yield archive


def member(blob: Blob, info: zipfile.ZipInfo, allowed: int) -> Blob:
    """One member of a zip, as bytes that can be opened again and again."""

    def open_member() -> IO[bytes]:
        raw = blob.open()
        try:
            archive = zipfile.ZipFile(raw)
            return _bounded(archive.open(info), inner, allowed, [archive, raw])
        except (*BROKEN, ValueError) as error:
            raw.close()
            raise _damaged(inner.name, error) from error

    inner = Blob(f"{blob.name}/{info.filename}", open_member, blob.size, typed=blob.typed)
    return inner


def _members(blob: Blob, limits: Limits, layer: int) -> Iterator[Blob]:
    if layer:
        raise _bomb(blob.name, "an archive inside an archive")
    with open_zip(blob) as archive:
        infos = archive.infolist()
    _check_list(blob, infos, limits)
    names = [info.filename for info in infos]
    if WORKBOOK in names:
        what = "this is an Office file (a workbook or a document), which is not read"
        raise DataError(what, where=blob.name, fix="save the sheet as CSV, or the document as text")
    if chat_root(names) is not None:
        yield replace(blob, chat=True)
        return
    wanted = [info for info in infos if not info.is_dir()]
    junk = tuple(info.filename for info in wanted if _is_junk(info.filename))
    allowed = limits.allowed(blob.size)
    for place, info in enumerate(info for info in wanted if info.filename not in junk):
        inner = replace(member(blob, info, allowed), skipped=junk if place == 0 else ())  # said once
        yield from unpack(inner, limits, layer + 1)


def _check_list(blob: Blob, infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(infos) > limits.members:
        raise _bomb(blob.name, f"{len(infos):,} members, at most {limits.members:,}")
    if sum(info.file_size for info in infos) > limits.allowed(blob.size):
        raise _bomb(blob.name, "it unpacks to far more than such a file should")
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        if not name:
            raise _damaged(blob.name, ValueError("a member without a name"))
        if name.startswith(("/", "\\")) or ":" in name.split("/")[0][:2] or ".." in name.replace("\\", "/").split("/"):
            raise DataError(f"not unpacked: the member {name!a} points out of the archive", where=blob.name)
        if info.flag_bits & 1:
            raise DataError(f"the member {name!a} is encrypted", where=blob.name, fix="unpack it with its password")
        if name in seen:
            raise DataError(f"two members are called {name!a}", where=blob.name, fix="unpack it and name the files")
        seen.add(name)


def _is_junk(name: str) -> bool:
    parts = name.split("/")
    return any(part in JUNK or part.startswith(".") for part in parts)


def chat_root(names: list[str]) -> str | None:
    """The folder ('' or 'name/') in which a Slack export's lists lie; None where there are none."""
    roots = {name.removesuffix("users.json") for name in names if name.split("/")[-1] == "users.json"}
    lists = ("channels.json", "groups.json", "dms.json", "mpims.json")
    return min((root for root in roots if any(root + lone in names for lone in lists)), default=None)
