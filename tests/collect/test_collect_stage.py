import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.collect.stage import CollectConfig, run
from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, read_rows
from tunesmith.core.records import Row

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def collect(folder: Path, name: str, data: bytes | str, **config: Any) -> Artifact:
    file = folder / name
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return run(CollectConfig(**config), [file], folder / "raw")


def rows(artifact: Artifact) -> list[Row]:
    return list(read_rows(artifact.path / "examples.jsonl"))


def content(artifact: Artifact) -> list[dict[str, Any]]:
    return [row.to_json() for row in rows(artifact)]


CSV = "question,answer\nWhat?,That.\nWhere?,There.\n"


def test_the_artifact_holds_rows_rejects_and_receipt(tmp_path: Path) -> None:
    lines = '{"question": "Q", "answer": "A"}\n{"question": "Q\n{"question": "R", "answer": null}\n'
    made = collect(tmp_path, "faq.jsonl", lines)
    assert [(row.question, row.meta.source, row.meta.line) for row in rows(made)] == [("Q", "faq.jsonl", 1)]
    rejects = list(read_jsonl(made.path / "rejects.jsonl"))
    assert [(r["source"], r["line"], r["reason"]) for r in rejects] == [
        ("faq.jsonl", 2, "malformed"),
        ("faq.jsonl", 3, "null"),
    ]
    assert rejects[0]["detail"].startswith("faq.jsonl:2:14: ")
    receipt = read_json(made.path / "receipt.json")
    assert (receipt["rows_in"], receipt["kept"], receipt["rejected"]) == (3, 1, {"malformed": 1, "null": 1})
    file = receipt["files"][0]
    assert (file["encoding"], file["container"], file["shape"]) == ("utf-8", "jsonl", "pair")
    assert file["mapping"] == {"prompt": "question", "completion": "answer"}
    assert open_artifact(made.path, "raw").facts["kept"] == 1
    assert made.name == receipt["raw_id"]
    assert len(made.name) == 12


def test_the_same_input_gives_the_same_artifact_and_other_input_another(tmp_path: Path) -> None:
    first = collect(tmp_path, "faq.csv", CSV)
    assert collect(tmp_path, "faq.csv", CSV).manifest == first.manifest
    assert collect(tmp_path, "faq.csv", CSV + "Who?,They.\n").name != first.name
    assert len(list((tmp_path / "raw").iterdir())) == 2


@pytest.mark.parametrize(
    ("data", "config"),
    [
        ("question,answer,best\nWhat?,That.,This.\n", {"map": {"prompt": "question", "completion": "best"}}),
        ("question,answer\nWhat?,Thät.\n", {"encoding": "cp1252"}),
        ("A story.\n\nIts end.\n", {"documents": "paragraph"}),
    ],
)
def test_every_config_field_changes_the_rows(tmp_path: Path, data: str, config: dict[str, Any]) -> None:
    plain, changed = collect(tmp_path, "faq.csv", data), collect(tmp_path, "faq.csv", data, **config)
    assert plain.name != changed.name
    assert content(plain) != content(changed)


def test_rows_of_several_files_keep_their_order_and_places(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = [tmp_path / "faq.csv", tmp_path / "b/faq.csv", tmp_path / "x.csv"]
    for path, question in zip(files, ("one", "two", "three"), strict=True):
        path.write_text(f"question,answer\n{question},yes\n")
    made = rows(run(CollectConfig(), files, tmp_path / "raw"))
    assert [row.question for row in made] == ["one", "two", "three"]
    assert len({row.meta.source for row in made}) == 3
    assert made[2].meta.source == "x.csv"


def test_an_unsure_encoding_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect(tmp_path, "faq.csv", "question,answer\nOù?,Là.\n".encode("cp1252"))
    said = capsys.readouterr()
    assert "read as cp1252" in said.err
    assert said.out == ""


def test_damaged_bytes_cost_their_own_row(tmp_path: Path) -> None:
    data = "question,answer\nÖl?,Ja.\nWas?,@\nWär,Wär.\n".encode().replace(b"@", b"\xff")
    made = collect(tmp_path, "faq.csv", data)
    assert [row.question for row in rows(made)] == ["Öl?", "Wär"]
    assert made.facts["rejected"] == {"bad_characters": 1}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("", "the file is empty"),
        ("question,answer\n", "a header and no rows"),
        ("<!DOCTYPE html><html></html>", "a web page"),
        ('{"question": "Q', "no row is left"),
        ("[]", "there are no rows"),
        ('{"messages": [{"role": "user", "content": "Q"}]}', "no row is left: 1 of 1 are rejected for 'no_answer'"),
    ],
)
def test_a_file_without_a_usable_row_stops_the_run(tmp_path: Path, data: str, text: str) -> None:
    with pytest.raises(DataError, match=text):
        collect(tmp_path, "faq.jsonl", data)
    assert not list(tmp_path.glob("raw/*"))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run(CollectConfig(), [tmp_path / "none.csv"], tmp_path)
    with pytest.raises(DataError, match="is a folder"):
        run(CollectConfig(), [tmp_path], tmp_path)
    with pytest.raises(UsageError, match="no file"):
        run(CollectConfig(), [], tmp_path)
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(UsageError, match="twice"):
        run(CollectConfig(), [tmp_path / "a.csv", tmp_path / "a.csv"], tmp_path)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
anything = st.one_of(
    st.fixed_dictionaries({"question": texts, "answer": st.one_of(texts, st.none(), st.integers())}),
    st.fixed_dictionaries({"prompt": texts, "completion": texts}),
    st.fixed_dictionaries({"question": texts, "answer": texts, "label": st.booleans()}),
    st.lists(texts, max_size=2),
    st.integers(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(anything, max_size=12), st.booleans())
def test_no_row_is_lost_whatever_the_file_holds(tmp_path: Path, values: list[object], cut: bool) -> None:
    good: list[object] = [{"question": f"Q{i}", "answer": "A"} for i in range(len(values) + 2)]
    lines = [json.dumps(value) for value in [*good, *values]] + ['{"question": "ha'] * cut
    made = collect(tmp_path, "faq.jsonl", "\n".join(lines))
    facts = made.facts
    assert facts["rows_in"] == len(lines) == facts["kept"] + sum(facts["rejected"].values())
    assert facts["kept"] == len(rows(made)) >= len(good)
    assert sum(facts["rejected"].values()) == len(list(read_jsonl(made.path / "rejects.jsonl")))
    assert [row.meta.line for row in rows(made)] == sorted(row.meta.line for row in rows(made))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.sampled_from(["csv", "jsonl", "json"]))
def test_encodings_and_line_ends_do_not_change_the_rows(
    tmp_path: Path, pairs: list[tuple[str, str]], kind: str
) -> None:
    dicts = [{"question": f"Is it {q}?", "answer": a} for q, a in pairs]
    quoted = ['"{}","{}\n"'.format(d["question"].replace('"', '""'), d["answer"].replace('"', '""')) for d in dicts]
    text = {
        "csv": "\n".join(["question,answer", *quoted]),
        "jsonl": "\n".join(json.dumps(d, ensure_ascii=False) for d in dicts),
        "json": json.dumps(dicts, indent=1, ensure_ascii=False),
    }[kind]
    plain = content(collect(tmp_path, "x", text))
    assert len(plain) == len(pairs)
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        for end in ("\n", "\r\n"):
            assert content(collect(tmp_path, "x", text.replace("\n", end).encode(encoding))) == plain


@real
@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("lamini/lamini_docs.jsonl", "pair", 1400),
        ("llamafactory/alpaca_en_demo.json", "pair", 999),
        ("llamafactory/identity.json", "pair", 91),
        ("llamafactory/dpo_en_demo.json", "preference", 300),
        ("llamafactory/c4_demo.jsonl", "text", 300),
        ("llamafactory/wiki_demo.txt", "text", 30),
        ("corpus/react.jsonl.gz", "text", 225),
        ("alpaca/seed_tasks.jsonl", "pair", 175),
        ("self_instruct/user_oriented_instructions.jsonl", "pair", 252),
        ("xquad/xquad.en.json", "pair", 1190),
        ("lamini/docs/faq.md", "pair", 10),
        ("fastchat/dummy_conversation.json", "messages", 500),
    ],
)
def test_real_files_are_read_whole(tmp_path: Path, name: str, shape: str, count: int) -> None:
    made = run(CollectConfig(), [DATA / name], tmp_path)
    assert made.facts["files"][0]["shape"] == shape
    assert (made.facts["rows_in"], made.facts["kept"]) == (count, count)
    if shape == "preference":
        assert all(row.chosen and row.rejected and row.question for row in rows(made))


@real
def test_real_chats_keep_every_turn(tmp_path: Path) -> None:
    file = DATA / "fastchat/dummy_conversation.json"
    turns = [len(chat["conversations"]) for chat in json.loads(file.read_text())]
    assert [len(row.messages) for row in rows(run(CollectConfig(), [file], tmp_path))] == turns


@real
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llamafactory/kto_en_demo.json", "300 of 300 are rejected for 'label'"),
        ("self_instruct/predictions/davinci_predictions.jsonl", "which columns"),
        ("truthfulqa/TruthfulQA.csv", "--map prompt=question --map completion=best_answer"),
        ("normalised/arc_easy_test.jsonl", "'choices'"),
        ("mt_bench/question.jsonl", r"which columns .* turns \(nested\)"),
        ("mmlu/dev/anatomy_dev.csv", "'choices'"),
        ("hellaswag/hellaswag_val_full.txt.bz2", "plain text"),
        ("spelling/noisy_query_en_1000.txt", "plain text"),
    ],
)
def test_real_files_that_are_not_examples_end_in_a_question(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(DataError, match=text):
        run(CollectConfig(), [DATA / name], tmp_path)


@real
def test_a_given_map_answers_the_question(tmp_path: Path) -> None:
    config = CollectConfig(map={"prompt": "Question", "completion": "Best Answer"})
    assert run(config, [DATA / "truthfulqa/TruthfulQA.csv"], tmp_path).facts["kept"] == 817
