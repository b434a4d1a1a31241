"""The metrics that need more than two texts, through a whole evaluation."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import read_json, read_jsonl
from tunesmith.core.records import Row
from tunesmith.engine.base import Generation, Score
from tunesmith.evaluate.report import table
from tunesmith.evaluate.stage import EvaluateConfig, EvaluateInputs, run, summary
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import train_bpe

COLOURS = ("red", "green", "blue")


class Model:
    """Answers from a function of the number that a question ends with; gives each token of a reference `p`."""

    context = 1 << 20

    def __init__(self, renderer: Renderer, say: Any, p: float) -> None:
        self.renderer, self.say, self.p = renderer, say, p
        self.batches: list[int] = []

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Any) -> list[Generation]:
        self.batches.append(len(prompts))
        texts = [self.renderer.tokenizer.decode(list(prompt)) for prompt in prompts]
        said = [self.say(int("".join(c for c in text if c.isdigit()))) for text in texts]
        return [Generation(text, tuple(range(len(text))), "stop") for text in said]

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        return [Score((math.log(self.p),) * len(end)) for _, end in requests]

    def embed(self, texts: Any) -> Any:
        raise NotImplementedError


class Letters:
    name = "letters"

    def embed(self, texts: Sequence[str]) -> Any:
        return np.array([[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts], np.float32)


def colour(n: int) -> str:
    return COLOURS[n % 3]


@pytest.fixture
def inputs(make_rows: Any, make_set: Any) -> Any:
    def make(**more: Any) -> EvaluateInputs:
        renderer = Renderer(train_bpe(["question 0123456789 red green blue"] * 3, 300))
        base = Model(renderer, lambda n: "red" if n % 2 else "a red one", 0.25)
        tuned = Model(renderer, lambda n: colour(n) if n % 4 else "blue", 0.5)
        set_ = make_set(make_rows(30, colour, 100), make_rows(12, colour))
        return EvaluateInputs(set_, base, tuned, renderer, **more)

    return make


def evaluate(inputs: EvaluateInputs, path: Path, *metrics: str) -> tuple[Any, list[Row]]:
    made = run(EvaluateConfig(metrics=metrics), inputs, path / "evals" / "eval-1")
    return made, list(read_jsonl(made.path / "scores.jsonl"))  # type: ignore[arg-type]


def report(made: Any) -> Any:
    return read_json(made.path / "report.json")


def test_labels_are_found_and_scored_with_macro_f1_and_a_confusion_matrix(inputs: Any, tmp_path: Path) -> None:
    made, _ = evaluate(inputs(), tmp_path, "label_valid")
    figures = report(made)
    # tuned: 12 rows; 0, 4 and 8 say blue, of which 8 is blue
    assert figures["metrics"]["label"]["tuned"] == pytest.approx(10 / 12)
    assert (figures["metrics"]["label_valid"]["base"], figures["metrics"]["label_valid"]["tuned"]) == (0.5, 1.0)
    assert figures["confusion"]["labels"] == ["blue", "green", "red"]
    assert figures["confusion"]["tuned"] == [[4, 0, 0, 0], [1, 3, 0, 0], [1, 0, 3, 0]]
    assert figures["confusion"]["base"] == [[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]]
    f1 = (2 * 4 / 10 + 2 * 3 / 7 + 2 * 3 / 7) / 3
    cell = figures["corpus"]["macro_f1"]
    assert cell["tuned"] == pytest.approx(f1)
    assert cell["low"] < cell["difference"] < cell["high"]
    assert summary(made)["corpus"]["macro_f1"]["tuned"] == pytest.approx(f1)
    lines = [line.split() for line in table(figures).splitlines()]
    assert ["labels", "of", "tuned", "blue", "green", "red", "(none)"] in lines
    assert ["green", "1", "3", "0", "0"] in lines
    assert "macro_f1" in table(figures)


def test_a_label_of_free_text_is_refused(make_rows: Any, make_set: Any, inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    rows = make_rows(12, lambda n: f"a long answer with number {n}")
    other = EvaluateInputs(make_set(rows, rows), given.base, given.tuned, given.renderer)
    with pytest.raises(UsageError, match="the metric label: the references are no labels"):
        evaluate(other, tmp_path, "label")


def test_perplexity_and_bits_of_the_references_under_both_models(inputs: Any, tmp_path: Path) -> None:
    made, scores = evaluate(inputs(reference_arms={"majority": ["red"] * 12}), tmp_path, "perplexity", "bpb")
    figures = report(made)
    for name in ("perplexity", "bpb"):
        cell, whole = figures["metrics"][name], figures["corpus"][name]
        assert cell["difference"] < 0
        assert (whole["n"], cell["arms"]["majority"]["n"]) == (12, 0)
        assert scores[0]["metrics"][name]["arms"] == {"majority": None}
    assert figures["corpus"]["perplexity"]["base"] == pytest.approx(4.0)
    assert figures["corpus"]["perplexity"]["tuned"] == pytest.approx(2.0)
    assert figures["corpus"]["bpb"]["base"] == pytest.approx(2 * figures["corpus"]["bpb"]["tuned"])
    assert "against majority" in table(figures)


def test_less_perplexity_is_better(inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    surprises = iter([0.3, 0.5, 0.6] * 4)
    given.tuned.score = lambda requests: [Score((math.log(next(surprises)),) * len(end)) for _, end in requests]
    made, _ = evaluate(given, tmp_path, "perplexity")
    assert report(made)["metrics"]["perplexity"]["verdict"] == "better"
    assert report(made)["corpus"]["perplexity"]["verdict"] == "better"


def test_bleu_and_chrf_come_by_row_and_over_all_rows(inputs: Any, tmp_path: Path) -> None:
    made, scores = evaluate(inputs(reference_arms={"majority": ["red"] * 12}), tmp_path, "bleu", "chrf", "rougeLsum")
    figures = report(made)
    assert scores[0]["metrics"]["chrf"]["arms"]["majority"] == 1.0
    assert figures["metrics"]["bleu"]["tuned"] == pytest.approx(10 / 12)
    assert figures["corpus"]["chrf"]["arms"]["majority"] > 0
    assert figures["corpus"]["bleu"]["tuned"] == 0.0  # one word has no four in a row
    assert figures["metrics"]["rougeLsum"]["tuned"] == pytest.approx(10 / 12)
    assert "NOT RUN" not in table(figures).split("errors")[0]


def test_latency_asks_one_by_one_and_tokens_are_counted(inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    made, scores = evaluate(given, tmp_path, "latency_ms", "output_tokens")
    assert given.base.batches == given.tuned.batches == [1] * 12
    figures = report(made)
    assert figures["latency_ms"]["tuned"]["p50"] <= figures["latency_ms"]["tuned"]["p95"]
    assert scores[0]["metrics"]["output_tokens"]["base"] == len("a red one")
    assert figures["metrics"]["output_tokens"]["verdict"] is None
    assert "latency of tuned: p50" in table(figures)


def test_similarity_by_a_model_where_there_is_one(inputs: Any, tmp_path: Path) -> None:
    made, scores = evaluate(inputs(embedder=Letters()), tmp_path, "similarity")
    assert report(made)["not_run"] == {}
    assert scores[1]["metrics"]["similarity"]["tuned"] == pytest.approx(1.0)
    assert list(report(made)["metrics"]) == ["similarity", "label"]


def test_without_a_model_spelling_stands_in_under_its_own_name(inputs: Any, tmp_path: Path) -> None:
    made, _ = evaluate(inputs(), tmp_path, "f1", "similarity")
    figures = report(made)
    assert list(figures["metrics"]) == ["f1", "similarity_lexical", "label"]
    assert "pip install" in figures["not_run"]["similarity"]
    assert "similarity: NOT RUN, no embedding model" in table(figures)
    assert "similarity: NOT RUN" in (made.path / "report.html").read_text("utf-8")


def test_patterns_schemas_and_own_functions_from_the_project(inputs: Any, tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text('{"type": "string"}')
    (tmp_path / "my_metrics.py").write_text(
        "def short(prediction, reference, row):\n    return len(prediction) < 4 if row['meta']['line'] else None\n"
    )
    names = ("regex:^(red|green|blue)$", "json_schema:answer.json", "my_metrics.py:short", "valid_json")
    made, scores = evaluate(inputs(folder=tmp_path), tmp_path, *names)
    cells = report(made)["metrics"]
    assert [cells[name]["tuned"] for name in names] == [1.0, 0.0, pytest.approx(3 / 11), 0.0]
    assert cells["my_metrics.py:short"]["n"] == 11  # None on the row of line 0
    assert scores[0]["metrics"]["my_metrics.py:short"]["tuned"] is None
    assert "your own function" in (made.path / "report.html").read_text("utf-8")


def test_a_missing_file_is_told_before_a_model_answers(inputs: Any, tmp_path: Path) -> None:
    given = inputs()
    with pytest.raises(UsageError, match=r"\[evaluate\] metrics: there is no file"):
        evaluate(given, tmp_path, "gone.py:f")
    assert given.base.batches == []
