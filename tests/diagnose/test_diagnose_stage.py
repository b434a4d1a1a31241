import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_json, read_jsonl
from tunesmith.core.records import Meta, pair
from tunesmith.diagnose.fixes import Proposal
from tunesmith.diagnose.stage import DiagnoseConfig, DiagnoseInputs, run, summary

LOOP = "go on go on go on"
TRAIN = [
    pair(f"What is {n}?", f"It is {n}. " + "Count up to it. " * (n % 4), meta=Meta("faq.jsonl", n)) for n in range(40)
]
Make = Callable[..., Artifact]


@pytest.fixture
def inputs(make: Make, prediction: Callable[..., dict[str, Any]]) -> DiagnoseInputs:
    lines = [prediction(n, LOOP, LOOP if n < 3 else f"It is {n}.") for n in range(100, 112)]
    lines += [prediction(n, LOOP, f"Perhaps, who knows. {n}", "Something else altogether.") for n in range(112, 118)]
    lines[0] |= {"tuned": LOOP}
    return DiagnoseInputs(
        make("eval", "eval-1", lines={"predictions": lines}), make("set", "set-1", rows={"train": TRAIN})
    )


def test_errors_fixes_and_report_are_written_and_sealed(inputs: DiagnoseInputs, tmp_path: Path) -> None:
    made = run(DiagnoseConfig(), inputs, tmp_path / "errors" / "errors-1")
    files = {path.name for path in made.path.iterdir()}
    assert files == {"errors.jsonl", "fixes.jsonl", "report.json", "report.md", "manifest.json"}
    assert open_artifact(made.path, "errors").facts["parents"]["eval"]["name"] == "eval-1"
    got = summary(made)
    cell = got["categories"]["repetitive"]
    assert (got["n"], cell["count"], cell["before"], cell["fixed"]) == (18, 1, 1.0, 17)
    errors = list(read_jsonl(made.path / "errors.jsonl"))
    assert len(errors) == 18  # wrong in the base at least
    assert errors[0]["change"]["repetitive"] == "persisting"
    assert errors[1]["change"] == {"repetitive": "fixed"}
    assert errors[0]["nearest"][0]["place"].startswith("faq.jsonl:")
    assert errors[1]["nearest"] == []  # nothing is wrong with the tuned answer
    offered = [Proposal.from_json(obj) for obj in read_jsonl(made.path / "fixes.jsonl")]
    assert got["proposals"] == len(offered) > 0
    text = (made.path / "report.md").read_text(encoding="utf-8")
    assert "| repetitive | 100.0 % | 5.6 % |" in text
    assert "tunesmith fix --accept repetitive" in text


def test_failures_without_a_category_are_put_into_named_clusters(inputs: DiagnoseInputs, tmp_path: Path) -> None:
    made = run(DiagnoseConfig(), inputs, tmp_path / "errors-1")
    rows = [place for cluster in summary(made)["clusters"] for place in cluster["rows"]]
    assert set(rows) <= {f"faq.jsonl:{n}" for n in range(112, 118)}
    assert rows


@pytest.mark.parametrize("change", [{"nearest": 1}, {"nearest": 0}, {"failing_below": 0.0}])
def test_every_field_changes_the_run(change: dict[str, Any], inputs: DiagnoseInputs, tmp_path: Path) -> None:
    one = run(DiagnoseConfig(), inputs, tmp_path / "a")
    two = run(DiagnoseConfig(**change), inputs, tmp_path / "b")
    assert [(one.path / name).read_text().replace('"a"', '"b"') for name in ("errors.jsonl", "report.json")] != [
        (two.path / name).read_text() for name in ("errors.jsonl", "report.json")
    ]


def test_the_same_evaluation_gives_the_same_files(inputs: DiagnoseInputs, tmp_path: Path) -> None:
    one, two = (run(DiagnoseConfig(), inputs, tmp_path / name / "errors-1") for name in ("a", "b"))
    assert one.hash == two.hash


def test_two_evaluations_are_compared_by_the_yardstick_of_the_first(
    make: Make, prediction: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    old = [prediction(n, "", LOOP) for n in range(10)]
    new = [prediction(n, "", f"It is {n}.") for n in range(2, 12)]
    sets = [make("set", f"set-{n}", rows={"train": TRAIN[: 40 - n]}) for n in (1, 2)]
    evals = [make("eval", f"eval-{n}", lines={"predictions": rows}) for n, rows in ((1, old), (2, new))]
    inputs = DiagnoseInputs(evals[1], sets[1], None, (evals[0], sets[0]))
    made = run(DiagnoseConfig(), inputs, tmp_path / "errors-1")
    got = summary(made)
    cell = got["categories"]["repetitive"]
    assert (got["arms"], got["n"]) == (["before", "after"], 8)
    assert (cell["before"], cell["rate"], cell["fixed"], cell["verdict"]) == (1.0, 0.0, 8, "better")
    assert read_json(made.path / "report.json")["sources"]["compared with"] == "eval-1"
    alone = make("eval", "eval-3", lines={"predictions": [prediction(99, "", "")]})
    with pytest.raises(DataError, match="share no row"):
        run(DiagnoseConfig(), DiagnoseInputs(alone, sets[0], None, (evals[0], sets[0])), tmp_path / "errors-2")


def test_no_held_out_text_is_in_a_proposal(inputs: DiagnoseInputs, tmp_path: Path) -> None:
    made = run(DiagnoseConfig(), inputs, tmp_path / "errors-1")
    held_out = [row["prompt"] for row in read_jsonl(inputs.eval_.path / "predictions.jsonl")]
    offered = json.dumps(list(read_jsonl(made.path / "fixes.jsonl")))
    assert not any(prompt in offered for prompt in held_out)
