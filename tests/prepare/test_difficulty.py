import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tunesmith.core.records import Meta, Row, pair
from tunesmith.engine.base import Generation, Sampling, Score
from tunesmith.prepare.difficulty import Difficulty, Request, _last, difficulties, hard, requests
from tunesmith.text.render import Example, Renderer
from tunesmith.text.tokenizer import Tokenizer


class Fake:
    """Gives each continuation token the log-probability that its prompt's last token names."""

    context = 8

    def __init__(self, table: dict[int, float]) -> None:
        self.table, self.asked = table, 0

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]) -> list[Generation]:
        raise NotImplementedError

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        self.asked += len(requests)
        return [Score((self.table[prompt[-1]],) * len(answer)) for prompt, answer in requests]


def test_ifd_is_the_loss_with_the_question_over_the_loss_alone() -> None:
    engine = Fake({7: -1.0, 0: -2.0})
    found, left_out = difficulties(engine, [Request("a", [5, 7], [1, 2, 3])], start=[0])
    assert (found, left_out) == ([Difficulty("a", 3, 1.0, 2.0)], 0)
    assert found[0].ifd == 0.5
    assert found[0].perplexity == pytest.approx(math.e)
    assert engine.asked == 2


def test_what_does_not_fit_the_context_is_counted_and_not_scored() -> None:
    found, left_out = difficulties(Fake({7: -1.0, 0: -2.0}), [Request("a", [7] * 6, [1, 2, 3])], start=[0])
    assert (found, left_out) == ([], 1)


def test_an_answer_that_costs_nothing_alone_has_no_finite_ifd() -> None:
    assert Difficulty("a", 4, 1.0, 0.0).ifd == math.inf


def test_the_answer_is_the_last_run_of_trained_tokens() -> None:
    mask = [False, True, True, False, False, True, True, False]
    assert _last(Example([0, 1, 2, 3, 4, 5, 6, 7], mask, "a")) == Request("a", [0, 1, 2, 3, 4], [5, 6])


def test_unhelpful_questions_and_unlikely_answers_are_listed_with_their_rows() -> None:
    rows = [pair(f"q{i}", f"a{i}", meta=Meta("f", i)) for i in range(12)]
    usual = [Difficulty(row.id, 10, 1.0 + i / 100, 2.0) for i, row in enumerate(rows[:10])]
    odd = [Difficulty(rows[10].id, 10, 2.5, 2.0), Difficulty(rows[11].id, 2, 9.0, 2.0)]  # the last is too short
    mismatch, surprising = hard(rows, [*usual, *odd])
    assert [(row.meta.line, why) for row, why in mismatch.hits] == [(10, "IFD 1.25")]
    assert [row.meta.line for row, _ in surprising.hits] == [10]
    assert surprising.hits[0][1].startswith("perplexity 12, z +")
    assert [finding.count for finding in hard(rows, [])] == [0, 0]


def test_rows_are_asked_as_they_are_trained(llama_dir: Path) -> None:
    tokenizer = Tokenizer.load(llama_dir)
    renderer = Renderer(tokenizer, "plain")
    row = pair("Which colour?", "Blue.")
    (made,) = requests(renderer, [row, Row(text="raw text has no answer")])
    assert made.row_id == row.id
    assert made.prompt == renderer.prompt(row.prompt)
    assert tokenizer.decode(made.answer[:-1]).strip() == "Blue."
    assert made.answer[-1] in renderer.stop_ids
