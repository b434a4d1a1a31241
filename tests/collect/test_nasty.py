"""The corpus of nasty files, each with its verdict; and what may not change a verdict."""

import gzip
import random
import runpy
from pathlib import Path
from typing import Any

import pytest

from tunesmith.collect.source import Source
from tunesmith.collect.stage import CollectConfig, sources
from tunesmith.collect.unpack import memory
from tunesmith.core.errors import TunesmithError
from tunesmith.core.records import Reject, Row

CASES: list[Any] = runpy.run_path(str(Path(__file__).parent / "nasty" / "corpus.py"))["CASES"]
PLAIN = [case for case in CASES if not case.error and case.data[:1] in b'{[qQTt#*<" \n']
seed = pytest.mark.parametrize("seed", range(3))


def collected(data: bytes) -> tuple[list[Source], list[Row], list[Reject]]:
    found = list(sources(CollectConfig(), memory(data, "f")))
    items = [item for source in found for item in source.items()]
    for source in found:
        source.check()
    return found, [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, Reject)]


def verdict(data: bytes) -> tuple[str, list[str], list[tuple[str, str]]] | str:
    """All that no accident of writing may change: shape, rows, reasons; or the error."""
    try:
        found, rows, rejects = collected(data)
    except TunesmithError as error:
        return error.what.split(":")[0]
    content = sorted(row.id for row in rows)
    return ",".join(source.shape.kind for source in found), content, sorted((r.reason, "") for r in rejects)


def test_there_are_at_least_sixty_files_all_named_differently() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_nasty_file_gets_its_verdict(case: Any) -> None:
    if case.error:
        with pytest.raises(TunesmithError) as error:
            collected(case.data)
        assert error.value.what.startswith(case.error)
        return
    found, rows, rejects = collected(case.data)
    assert {source.shape.kind for source in found} == {case.shape}
    facts = [source.facts() for source in found]
    assert sum(fact["rows_in"] for fact in facts) == case.rows == len(rows) + len(rejects)
    assert sum(fact["kept"] for fact in facts) == case.kept == len(rows)
    reasons: dict[str, int] = {}
    for reject in rejects:
        reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
        assert reject.line >= 1
    assert reasons == case.rejected
    if case.pairs:
        assert [(row.question, row.answer) for row in rows] == list(case.pairs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gzip_changes_no_verdict(case: Any) -> None:
    if not case.data.startswith((b"PK", b"\x1f\x8b", b"BZh", b"\xfd7z")):  # archives in archives have their own rules
        assert verdict(gzip.compress(case.data)) == verdict(case.data)


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_line_ends_and_encodings_change_no_verdict(case: Any) -> None:
    try:
        text = case.data.decode()
    except UnicodeDecodeError:
        return
    expected = verdict(case.data)
    if "\r" not in text:
        assert verdict(text.replace("\n", "\r\n").encode()) == expected
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert verdict(text.encode(encoding)) == expected
    assert verdict(text.encode("utf-16-le")) == expected


@seed
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_the_order_of_rows_changes_no_verdict(case: Any, seed: int) -> None:
    """JSON lines and tables whose rows are lines; a row may stand anywhere."""
    try:
        text = case.data.decode()
    except UnicodeDecodeError:
        return
    found, _, _ = collected(case.data)
    head = 1 if found[0].file.container == "csv" else 0
    if found[0].file.container not in ("csv", "jsonl") or found[0].shape.kind == "tickets" or ('"' in text and head):
        return
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    body = lines[head:]
    random.Random(seed).shuffle(body)
    assert verdict("\n".join([*lines[:head], *body]).encode()) == verdict(case.data)
