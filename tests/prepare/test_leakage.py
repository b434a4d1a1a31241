import bz2
import gzip
import json
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError
from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.leakage import Item, leaks, read_benchmark

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
WORDS = [f"word{i}" for i in range(30)]
HELLASWAG = "A man sits on a roof. he\n3\na\nb\nc\nd\n" * 2
FORMATS = {
    "arc.jsonl": '{"id": "1", "question": "Why is it?", "choices": ["a"], "label": 0}\n',
    "arc_official.jsonl": '{"question": {"stem": "Why is it?", "choices": []}, "answerKey": "A"}\n',
    "hellaswag.jsonl": '{"ctx": "Why is it?", "endings": ["a"]}\n',
    "mmlu.csv": 'question,choice0,choice1,choice2,choice3,answer\r\nWhy is it?,a,b,c,"d, e",0\r\n',
    "mmlu_official.csv": 'Why is it?,a,b,c,"d\n e",A\n',
    "truthfulqa.csv": "Type,Category,Question,Best Answer\nAdversarial,x,Why is it?,y\n",
}


def hits(rows: list[Row], *questions: str) -> list[tuple[int, int]]:
    """(line of the row, number of the item)."""
    items = [Item(number, question) for number, question in enumerate(questions, 1)]
    (leak,) = leaks(Corpus.of(rows), [("file", items)])
    assert leak.items == len(questions)
    return [(row.meta.line, number) for row, number in leak.hits]


def row(question: str, answer: str = "answer", line: int = 1) -> Row:
    return pair(question, answer, meta=Meta("f", line))


@pytest.mark.parametrize("name", FORMATS)
def test_every_public_format_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMATS[name], encoding="utf-8", newline="")
    assert read_benchmark(path) == [Item(1, "Why is it?")]


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, bytes])
def test_hellaswags_text_and_packed_files_are_read(tmp_path: Path, pack: type) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack(HELLASWAG.encode()))
    assert read_benchmark(path) == [Item(1, "A man sits on a roof. he"), Item(2, "A man sits on a roof. he")]


@pytest.mark.parametrize(
    "data", [b"", b"just words", b"{broken", b'{"a": 1}\n', b"\xff\xfe\x00", b"BZhbroken", b"\x1f\x8b"]
)
def test_another_file_is_refused_with_what_is_expected(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(DataError, match="expected: ARC"):
        read_benchmark(path)
    with pytest.raises(DataError, match="does not exist"):
        read_benchmark(tmp_path / "none")


def test_twelve_words_in_a_row_are_an_overlap_and_eleven_are_not() -> None:
    question = " ".join(WORDS[:20])
    rows = [row(f"before {' '.join(WORDS[5:17])} after", line=1), row(" ".join(WORDS[5:16]), line=2)]
    assert hits([*rows, row("q", " ".join(WORDS[8:20]), line=3)], question) == [(1, 1), (3, 1)]


def test_a_question_of_eight_to_eleven_words_is_found_whole_inside_a_row() -> None:
    eight, seven = " ".join(WORDS[:8]), " ".join(WORDS[10:17])
    rows = [row(f"please say: {eight}?", line=1), row(f"please say: {seven}?", line=2), row(seven.upper(), line=3)]
    assert hits(rows, eight, seven) == [(1, 1), (3, 2)]


def test_four_words_are_everybodys_question() -> None:
    assert hits([row("Who are you really?")], "Who are you really?") == []
    assert hits([row("Who are you really, friend?")], "Who are you, really -- friend?") == []
    assert hits([row("who are you really friend")], "Who are you really, friend?") == [(1, 1)]
    (leak,) = leaks(Corpus.of([row("x")]), [("file", [Item(1, "Who are you?"), Item(2, " ".join(WORDS))])])
    assert (leak.items, leak.short) == (2, 1)


def test_a_run_does_not_cross_from_row_to_row() -> None:
    assert hits([row(" ".join(WORDS[:6])), row(" ".join(WORDS[6:12]))], " ".join(WORDS[:12])) == []


def test_files_are_told_apart() -> None:
    files = [("a", [Item(1, " ".join(WORDS))]), ("b", [Item(1, "x " * 12)])]
    assert [len(leak.hits) for leak in leaks(Corpus.of([row(" ".join(WORDS))]), files)] == [1, 0]


@real
@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("normalised/arc_easy_test.jsonl", 2376),
        ("hellaswag/hellaswag_val_full.txt.bz2", 10042),
        ("mmlu/test/anatomy_test.csv", 135),
        ("truthfulqa/TruthfulQA.csv", 817),
    ],
)
def test_planted_items_of_real_benchmarks_are_found_and_no_other(name: str, items: int) -> None:
    found = read_benchmark(DATA / name)
    assert len(found) == items
    planted = [item for item in found if len(item.question.split()) >= 14][:5]
    texts = [json.loads(line) for line in (DATA / "lamini/lamini_docs.jsonl").read_text().splitlines()]
    rows = [row(text["question"], text["answer"], line) for line, text in enumerate(texts, 1)]
    rows += [row(f"Please tell me: {item.question}", line=10_000 + item.number) for item in planted]
    (leak,) = leaks(Corpus.of(rows), [(name, found)])
    assert {r.meta.line - 10_000 for r, _ in leak.hits} == {item.number for item in planted}
