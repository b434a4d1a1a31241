import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl
from tunesmith.core.records import Message, Meta, Row
from tunesmith.evaluate.stage import DEFAULT, EvaluateConfig, EvaluateInputs, run, summary
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import train_bpe

GUARD = "I only answer questions about the library."


def answer(n: int) -> str:
    return f"The answer number {n} stands in chapter {n % 4} of the book."


@pytest.fixture
def inputs(make_rows: Any, make_set: Any, make_engine: Any, renderer: Any) -> Callable[..., EvaluateInputs]:
    """A set of 12 test rows and 40 training rows; the base answers nonsense, the tuned model is right."""

    def make(**changes: Any) -> EvaluateInputs:
        parts = {"train": make_rows(40, answer, 100), "test": make_rows(12, answer), "valid": make_rows(3, answer, 50)}
        set_ = make_set(**{name: changes.pop(name, part) for name, part in parts.items()})
        base = make_engine(changes.pop("base", lambda n: "zebra"))
        tuned = make_engine(changes.pop("tuned", answer))
        return EvaluateInputs(set_, base, tuned, renderer, **changes)

    return make


def evaluate(inputs: EvaluateInputs, path: Path, **config: Any) -> Artifact:
    return run(EvaluateConfig(**config), inputs, path / "evals" / "eval-1")


def report(artifact: Artifact) -> Any:
    return read_json(artifact.path / "report.json")


def test_a_right_model_scores_one_and_a_wrong_one_zero_on_every_metric(inputs: Any, tmp_path: Path) -> None:
    got = summary(evaluate(inputs(), tmp_path))
    shares = {name: cell for name, cell in got["metrics"].items() if name != "length_ratio"}
    parts = {f"rouge{n}_{part}" for n in "12L" for part in ("precision", "recall")}
    assert set(shares) == {"exact_match", "f1", "rouge1", "rouge2", "rougeL"} | parts
    assert {(cell["base"], cell["tuned"], cell["difference"]) for cell in shares.values()} == {(0.0, 1.0, 1.0)}
    assert all(0 < cell["low"] < cell["high"] == 1.0 and cell["p"] < 0.01 for cell in shares.values())
    assert got["metrics"]["length_ratio"]["base"] == pytest.approx(1 / 11)
    assert got["metrics"]["length_ratio"]["tuned"] == 1.0
    assert got["errors"] == {name: {"base": 0.0, "tuned": 0.0} for name in ("misspelling", "too_long", "repetitive")}


def test_the_summary_is_the_contract(inputs: Any, tmp_path: Path) -> None:
    artifact = evaluate(inputs(), tmp_path)
    got = summary(open_artifact(artifact.path, "eval"))
    assert list(got) == ["path", "report", "n", "metrics", "corpus", "errors", "not_run"]
    assert got["path"] == str(tmp_path / "evals" / "eval-1")
    assert got["report"] == str(tmp_path / "evals" / "eval-1" / "report.html")
    assert got["n"] == 12
    assert {tuple(cell) for cell in got["metrics"].values()} == {("base", "tuned", "difference", "low", "high", "p")}


def test_both_models_get_the_very_same_prompts(inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    evaluate(given, tmp_path)
    assert given.base.calls == given.tuned.calls
    ((prompts, sampling),) = given.base.calls
    assert prompts == [[n] for n in range(12)]
    assert sampling.temperature == 0.0


def test_each_row_has_its_prediction_and_its_scores(inputs: Any, tmp_path: Path) -> None:
    given = inputs(reference_arms={"majority": [answer(3)] * 12}, tuned=lambda n: "did not stop …")
    path = evaluate(given, tmp_path).path
    first = next(read_jsonl(path / "predictions.jsonl"))
    row = next(read_jsonl(given.set_.path / "test.jsonl"))
    assert first == {
        "id": row["id"],
        "source": "faq.jsonl",
        "line": 0,
        "group": "g0",
        "origin": "human",
        "prompt": "question 0",
        "reference": answer(0),
        "base": "zebra",
        "tuned": "did not stop …",
        "base_finish": "stop",
        "tuned_finish": "length",
        "arms": {"majority": answer(3)},
    }
    scored = list(read_jsonl(path / "scores.jsonl"))
    assert scored[3]["metrics"]["exact_match"] == {"base": 0.0, "tuned": 0.0, "arms": {"majority": 1.0}}
    assert scored[0]["errors"] == {"base": {}, "tuned": {"too_long": "did not stop before the limit of new tokens"}}
    assert [line["id"] for line in scored] == [line["id"] for line in read_jsonl(path / "predictions.jsonl")]


def test_errors_before_and_after_are_counted_by_what_became_of_them(inputs: Any, tmp_path: Path) -> None:
    loop = "go on go on go on go on"
    given = inputs(base=lambda n: loop if n < 6 else "zebra", tuned=lambda n: loop if 4 <= n < 7 else answer(n))
    cell = report(evaluate(given, tmp_path))["errors"]["repetitive"]
    assert (cell["base"], cell["tuned"], cell["n"]) == (0.5, 0.25, 12)
    assert (cell["fixed"], cell["introduced"], cell["persisting"]) == (4, 1, 2)
    assert cell["verdict"] == "cannot tell"


def test_reference_arms_are_compared_with_the_tuned_model(inputs: Any, tmp_path: Path) -> None:
    arms = {"bm25": [answer(n) for n in range(12)], "majority": ["zebra"] * 12}
    figures = report(evaluate(inputs(reference_arms=arms), tmp_path))
    cells = figures["metrics"]["exact_match"]["arms"]
    assert figures["arms"] == ["bm25", "majority"]
    assert (cells["bm25"]["base"], cells["bm25"]["difference"], cells["bm25"]["verdict"]) == (1.0, 0.0, "cannot tell")
    assert (cells["majority"]["base"], cells["majority"]["verdict"]) == (0.0, "better")


@pytest.mark.parametrize("arms", [{"bm25": ["one"]}, {"tuned": ["x"] * 12}])
def test_an_arm_that_fits_no_row_or_takes_a_name_is_refused(inputs: Any, tmp_path: Path, arms: Any) -> None:
    with pytest.raises(ValueError, match="arm '"):
        evaluate(inputs(reference_arms=arms), tmp_path)


def test_fields_are_scored_where_the_references_have_them(inputs: Any, make_rows: Any, tmp_path: Path) -> None:
    test = make_rows(6, lambda n: f"action: get; needed: {n}") + make_rows(6, answer, 6)
    given = inputs(test=test, base=lambda n: "action: get; needed: 99", tuned=lambda n: f"needed: {n}\naction: get")
    cell = report(evaluate(given, tmp_path))["metrics"]["fields"]
    assert (cell["n"], cell["base"], cell["tuned"]) == (6, 0.5, 1.0)


def test_guard_rows_are_measured_by_their_answer(inputs: Any, make_rows: Any, tmp_path: Path) -> None:
    train = make_rows(20, answer, 100) + make_rows(5, lambda n: GUARD, 200)
    test = make_rows(6, answer) + make_rows(4, lambda n: GUARD, 6)
    tuned = lambda n: GUARD if n == 0 or n in (6, 7, 8) else answer(n)  # noqa: E731
    metrics = report(evaluate(inputs(train=train, test=test, tuned=tuned), tmp_path))["metrics"]
    assert (metrics["guard_recall"]["n"], metrics["guard_recall"]["tuned"]) == (4, 0.75)
    assert (metrics["false_refusal"]["n"], metrics["false_refusal"]["tuned"]) == (6, pytest.approx(1 / 6))


def test_the_answers_of_rows_meant_as_guards_are_guards_however_few(
    inputs: Any, make_rows: Any, tmp_path: Path
) -> None:
    train = [*make_rows(20, answer, 100), *make_rows(1, lambda n: GUARD, 200, origin="guard")]
    test = make_rows(2, answer) + make_rows(2, lambda n: GUARD, 6, origin="guard")
    figures = report(evaluate(inputs(train=train, test=test), tmp_path))
    assert figures["metrics"]["guard_recall"]["n"] == 2
    assert {origin: part["n"] for origin, part in figures["origins"].items()} == {"human": 2, "guard": 2}
    assert figures["origins"]["human"]["metrics"]["exact_match"]["tuned"] == 1.0


def test_a_short_guard_is_one_where_its_row_says_so(inputs: Any, make_rows: Any, tmp_path: Path) -> None:
    train = [*make_rows(20, answer, 100), *make_rows(1, lambda n: "Not here.", 200, origin="guard")]
    test = make_rows(2, answer) + make_rows(2, lambda n: "Not here.", 6)
    assert report(evaluate(inputs(train=train, test=test), tmp_path))["metrics"]["guard_recall"]["n"] == 2


def test_the_renderer_of_training_fits(make_rows: Any, make_set: Any, make_engine: Any, tmp_path: Path) -> None:
    tokenizer = train_bpe([answer(n) for n in range(9)], 300)
    renderer, train = Renderer(tokenizer), make_rows(9, answer, 100)
    longest = max(len(tokenizer.encode(row.answer)) for row in train)
    engine = make_engine(lambda first: "x")
    given = EvaluateInputs(make_set(train, make_rows(2, answer)), engine, engine, renderer)
    assert report(evaluate(given, tmp_path))["max_new_tokens"] == math.ceil(1.5 * (longest + 1))
    prompts, _ = engine.calls[0]
    assert prompts[0] == renderer.prompt((Message("user", "question 0"),))


def test_the_limit_of_new_tokens_comes_from_the_training_answers(inputs: Any, make_rows: Any, tmp_path: Path) -> None:
    given = inputs(train=make_rows(10, lambda n: "x" * (n - 95), 100))  # 5..14 characters, a token each, and a stop
    assert report(evaluate(given, tmp_path))["max_new_tokens"] == 23  # 1.5 x 15, rounded up
    assert given.tuned.calls[0][1].max_new_tokens == 23


def test_the_limit_of_new_tokens_is_512_at_most(inputs: Any, make_rows: Any, tmp_path: Path) -> None:
    given = inputs(train=make_rows(2, lambda n: "x" * 900, 100))
    assert report(evaluate(given, tmp_path))["max_new_tokens"] == 512


def test_rows_without_an_answer_are_counted_and_preferences_use_the_chosen_one(
    inputs: Any, make_rows: Any, tmp_path: Path
) -> None:
    asked = (Message("user", "question 2"),)
    chosen = Row(asked, chosen=answer(2), rejected="no", meta=Meta("p.jsonl", 1))
    test = [*make_rows(2, answer), chosen, Row(text="raw"), Row((Message("user", "question 9"),))]
    artifact = evaluate(inputs(test=test), tmp_path)
    figures = report(artifact)
    assert (figures["n"], figures["rows"], figures["skipped"]) == (3, 5, {"no answer": 2})
    assert summary(artifact)["metrics"]["exact_match"]["tuned"] == 1.0
    assert "left out: 2 (no answer)" in (artifact.path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("test", [[], [Row(text="raw text only")]])
def test_nothing_to_answer_is_an_error_that_names_the_file(inputs: Any, tmp_path: Path, test: list[Row]) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl: nothing to evaluate on"):
        evaluate(inputs(test=test), tmp_path)


def test_one_row_gives_its_scores_without_an_interval(inputs: Any, make_rows: Any, tmp_path: Path) -> None:
    artifact = evaluate(inputs(test=make_rows(1, answer)), tmp_path)
    cell = summary(artifact)["metrics"]["exact_match"]
    assert cell == {"base": 0.0, "tuned": 1.0, "difference": 1.0, "low": None, "high": None, "p": None}
    assert report(artifact)["metrics"]["exact_match"]["verdict"] == "cannot tell"


def test_a_taken_name_is_refused_before_anything_is_generated(inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    (tmp_path / "evals" / "eval-1").mkdir(parents=True)
    with pytest.raises(UsageError, match="exists"):
        evaluate(given, tmp_path)
    assert given.base.calls == []


def test_the_same_inputs_give_the_same_files(inputs: Any, make_run: Any, tmp_path: Path) -> None:
    given = inputs(run=make_run([{"step": 1, "train_loss": 2.0}]))
    first, second = (evaluate(given, tmp_path / name) for name in "ab")
    assert first.hash == second.hash
    assert first.facts["parents"]["run"]["name"] == "run-1"


def _outcome(inputs: EvaluateInputs, path: Path, **config: Any) -> tuple[Any, ...]:
    artifact = evaluate(inputs, path, **config)
    (prompts, sampling) = inputs.tuned.calls[-1]  # type: ignore[attr-defined]
    figures = report(artifact)
    intervals = [(cell["low"], cell["p"]) for cell in figures["metrics"].values()]
    return prompts, sampling.max_new_tokens, list(figures["metrics"]), intervals


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"split": "valid"}, 0),
        ({"limit": 5}, 0),
        ({"max_new_tokens": 7}, 1),
        ({"metrics": ("f1",)}, 2),
        ({"seed": 1}, 3),
    ],
)
def test_every_field_changes_the_run(
    inputs: Any, make_rows: Any, tmp_path: Path, change: dict[str, Any], part: int
) -> None:
    rows = make_rows(30, answer)  # of fewer groups all sign patterns are counted, and no seed is asked
    given = inputs(base=lambda n: answer(n)[: 5 + n], tuned=lambda n: answer(n)[: 38 - n], test=rows)
    before, after = _outcome(given, tmp_path / "a"), _outcome(given, tmp_path / "b", **change)
    assert before[part] != after[part]
    others = {"embedder", "int8"}  # read by the door: tests/test_cli_test.py, tests/test_bases.py
    assert {"split", "limit", "max_new_tokens", "metrics", "seed"} | others == set(EvaluateConfig.model_fields)


def test_a_limit_takes_the_same_rows_each_time_and_more_rows_with_a_higher_one(inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    sizes = {n: evaluate(given, tmp_path / str(n), limit=n) for n in (3, 5, 99)}
    ids = {n: [line["id"] for line in read_jsonl(a.path / "scores.jsonl")] for n, a in sizes.items()}
    assert [len(ids[n]) for n in (3, 5, 99)] == [3, 5, 12]
    assert set(ids[3]) < set(ids[5]) < set(ids[99])
    assert "3 of the 12 rows" in (sizes[3].path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"max_new_tokens": 0}, {"metrics": ("blue",)}, {"split": "train"}])
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EvaluateConfig(**wrong)
    assert EvaluateConfig().metrics == DEFAULT


def test_a_prompt_that_leaves_no_room_for_an_answer_is_skipped_and_counted(inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    given.base.context = 1  # a prompt is one token here, so nothing fits
    with pytest.raises(DataError, match="nothing to evaluate on"):
        evaluate(given, tmp_path)
    given.base.context, given.renderer.prompt = 12, lambda messages: [0] * (int(messages[-1].content.split()[-1]) + 9)
    figures = read_json(evaluate(given, tmp_path).path / "report.json")
    assert (figures["n"], figures["skipped"]) == (3, {"prompt too long": 9})
