"""`tunesmith test` as a person and a CI server use it, on a run and on files of predictions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tunesmith.core.artifact import open_artifact

Tunesmith = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("cache")

PREDICTIONS = [
    {"id": "1", "prompt": "How do I reset it?", "output": "Open Settings.", "reference": "Settings", "finish": "stop"},
    {"id": "2", "prompt": "Reset it, how?", "output": "I do not know", "finish": "length"},
    {"id": "3", "prompt": "Give JSON", "output": '{"a": 1}', "finish": "stop", "latency_ms": 12.5},
]
SUITE = """\
[[test]]
name = "reset"
prompt = ["How do I reset it?", "reset it,  how?"]
contains = "settings"

[[test]]
rows = "more.jsonl"
valid_json = true
latency_ms = 20

[[test]]
max_words = 5
"""


@pytest.fixture(scope="module")
def project(tunesmith: Tunesmith, tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """A project with a run of two steps: its models answer anything."""
    here = tmp_path_factory.mktemp("project")
    things = ["lantern", "compass", "blanket", "violin", "ladder", "kettle", "hammer", "mirror", "basket", "candle"]
    lines = [{"question": f"where {t} {p}?", "answer": f"The {t} is {p}."} for t in things for p in ("up", "out", "in")]
    (here / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tunesmith("new", "faq", "--data", "faq.jsonl", "--base", llama_dir, cwd=here).code == 0
    for words in (("prepare",), ("train", "--max-steps", 2)):
        said = tunesmith(*words, cwd=here / "faq")
        assert said.code == 0, said.err
    return here / "faq"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in PREDICTIONS))
    (tmp_path / "base.jsonl").write_text("".join(json.dumps({**p, "output": "no"}) + "\n" for p in PREDICTIONS))
    (tmp_path / "more.jsonl").write_text('{"prompt": "give json"}\n')
    (tmp_path / "tests.toml").write_text(SUITE)
    return tmp_path


def test_without_a_suite_one_is_made_and_run_on_base_and_tuned(tunesmith: Tunesmith, project: Path) -> None:
    first = tunesmith("test", "--json", cwd=project)
    assert first.code in (0, 1), first.err  # a model of two steps may do either
    facts = first.json
    assert (project / "tests.toml").is_file()
    assert "to start from" in first.err
    assert [one["assertion"] for one in facts["tests"]] == ["min_words", "stops", "repetitive"]
    assert all(one["base"]["n"] == one["n"] > 0 for one in facts["tests"])
    assert facts["passed"] == (first.code == 0) == (facts["failed"] == 0)
    made = open_artifact(Path(facts["path"]), "test")
    assert set(made.facts["parents"]) == {"set", "run"}
    assert "next: tunesmith show test" in first.err
    shown = tunesmith("show", "test", "--json", cwd=project)
    assert (shown.code, shown.json["suite"]) == (0, "tests.toml")


def test_a_failing_test_exits_with_1_and_a_passing_one_with_0(tunesmith: Tunesmith, project: Path) -> None:
    (project / "own.py").write_text("def any(prediction, reference):\n    return True\n")
    (project / "good.toml").write_text('[[test]]\nname = "mine"\nprompt = "where?"\nfunction = "own.py:any"\n')
    (project / "bad.jsonl").write_text('{"prompt": "where?", "contains": "a word that is in no answer"}\n')
    good = tunesmith("test", "good.toml", "--no-base", "--name", "smoke", "--json", cwd=project)
    assert (good.code, good.json["tests"][0]["base"]) == (0, None)
    assert Path(good.json["path"]).name == "smoke"
    assert "PASS  mine: function  1 of 1 rows" in good.err
    bad = tunesmith("test", "bad.jsonl", "--junit", "out/junit.xml", cwd=project)
    assert bad.code == 1
    assert "1 of 1 assertions failed" in bad.err
    assert ElementTree.parse(project / "out" / "junit.xml").getroot()[0].get("failures") == "1"


def test_rows_and_latency_of_a_run(tunesmith: Tunesmith, project: Path) -> None:
    rows = '{"prompt": "where?", "reference": "up"}\n{"messages": [{"role": "user", "content": "out?"}]}\n'
    (project / "rows.jsonl").write_text(rows)
    (project / "slow.toml").write_text('[[test]]\nrows = "rows.jsonl"\nlatency_ms = 60000\n')
    facts = tunesmith("test", "slow.toml", "--no-base", "--json", cwd=project).json
    assert (facts["passed"], facts["tests"][0]["n"]) == (True, 2)


def test_predictions_are_tested_anywhere(tunesmith: Tunesmith, files: Path) -> None:
    said = tunesmith("test", "--predictions", "p.jsonl", "--against", "base.jsonl", "--json", cwd=files)
    assert said.code == 1
    contains, is_json, fast, short = said.json["tests"]
    assert (contains["n"], contains["passed"], contains["base"]["passed"]) == (2, 1, 0)
    assert contains["failures"] == [
        {"id": "2", "prompt": "reset it,  how?", "output": "I do not know", "why": "lacks 'settings'"}
    ]
    assert (is_json["passed"], fast["passed"], is_json["n"]) == (1, 1, 1)
    assert (short["n"], short["ok"]) == (3, True)
    assert not list(files.glob("evals"))


def test_a_question_without_a_prediction_is_not_run_and_fails(tunesmith: Tunesmith, files: Path) -> None:
    (files / "tests.toml").write_text('[[test]]\nprompt = "Anything else?"\nmax_words = 9\n')
    said = tunesmith("test", "--predictions", "p.jsonl", cwd=files)
    assert said.code == 1
    assert "NOT RUN on 1 row(s): there is no answer" in said.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--against", "p.jsonl"], 2, "--against without --predictions"),
        (["--predictions", "p.jsonl", "--run", "x"], 2, "--run with --predictions"),
        (["gone.toml", "--predictions", "p.jsonl"], 2, "there is no suite gone.toml"),
        (["--predictions", "bad.jsonl"], 3, "bad.jsonl:2: a prediction without an id"),
        (["--predictions", "twice.jsonl"], 3, "twice.jsonl:2: the id '1' stands twice"),
        (["--predictions", "empty.jsonl"], 3, "empty.jsonl: no predictions"),
        (["--predictions", "text.jsonl"], 3, "text.jsonl:1: 'output' is missing"),
        (["--predictions", "p.jsonl", "--against", "one.jsonl"], 3, "one.jsonl: no answer to '2'"),
    ],
)
def test_mistakes_are_told(tunesmith: Tunesmith, files: Path, words: list[str], code: int, said: str) -> None:
    good = json.dumps(PREDICTIONS[0]) + "\n"
    for name, text in (("bad", good + "{}\n"), ("twice", good * 2), ("empty", "\n"), ("one", good)):
        (files / f"{name}.jsonl").write_text(text)
    (files / "text.jsonl").write_text('{"id": "1", "prompt": "a"}\n')
    got = tunesmith("test", *words, cwd=files)
    assert got.code == code, got.err
    assert said in got.err


def test_a_missing_file_of_rows_names_the_test(tunesmith: Tunesmith, files: Path) -> None:
    (files / "more.jsonl").unlink()
    got = tunesmith("test", "--predictions", "p.jsonl", cwd=files)
    assert got.code == 2
    assert "tests.toml:6: there is no file" in got.err


def test_metrics_of_evaluate_can_be_asked_for_by_flag(tunesmith: Tunesmith, project: Path) -> None:
    (project / "own.py").write_text("def any(prediction, reference):\n    return True\n")
    flags = ("--metric", "own.py:any", "--metric", "bpb", "--metric", "chrf")
    facts = tunesmith("evaluate", *flags, "--json", cwd=project).json
    assert {"own.py:any", "bpb", "chrf"} <= facts["metrics"].keys()
    assert facts["metrics"]["own.py:any"]["tuned"] == 1.0
    assert facts["corpus"]["bpb"]["tuned"] > 0
    wrong = tunesmith("evaluate", "--metric", "blue", cwd=project)
    assert wrong.code == 2
    assert "did you mean 'bleu'" in wrong.err


def test_the_embedder_that_is_named_is_the_one_that_is_used(tunesmith: Tunesmith, project: Path) -> None:
    file = project / "tunesmith.toml"
    before = file.read_text()
    file.write_text(before.replace("# embedder =", 'embedder = "gone"'))
    got = tunesmith("evaluate", "--metric", "similarity", cwd=project)
    file.write_text(before)
    assert got.code == 4
    assert "there is no directory gone" in got.err
