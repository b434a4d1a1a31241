from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train.data import Rendered, answered, build, question_and_answer, render, select

ASK, SAY = Message("user", "Why?"), Message("assistant", "So.")


@pytest.fixture
def renderer(qwen_dir: Path) -> Renderer:
    return Renderer(Tokenizer.load(qwen_dir))


def test_rows_in_are_rows_kept_and_rows_skipped_each_with_its_place(renderer: Renderer) -> None:
    rows = [
        pair("Why?", "So."),
        pair("Why?", "So. " * 50, meta=Meta("a.jsonl", 7)),
        Row((ASK,), meta=Meta("a.jsonl", 8)),
        Row(text="Some text."),
    ]
    found = build(rows, renderer, max_length=40)
    assert (found.rows, len(found.kept), len(found.skipped)) == (2, 2, 2)
    long, silent = found.skipped
    assert (long["source"], long["line"], long["reason"]) == ("a.jsonl", 7, "too_long")
    assert (silent["line"], silent["reason"]) == (8, "no_answer")
    assert long["id"] == rows[1].id


def test_a_row_is_as_long_as_its_tokens_and_the_limit_is_inclusive(renderer: Renderer) -> None:
    size = len(renderer.render(pair("Why?", "So."))[0].ids)
    assert len(build([pair("Why?", "So.")], renderer, size).kept) == 1
    (skipped,) = build([pair("Why?", "So.")], renderer, size - 1).skipped
    assert skipped["detail"] == f"{size} tokens, the limit is {size - 1}"


def test_a_row_is_rendered_once_whether_it_is_measured_or_trained(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [pair("Why?", "So."), Row((ASK,)), pair("Why?", "So. " * 50)]
    whole = render(rows, renderer)
    size = len(renderer.render(rows[0])[0].ids)
    assert [one.tokens for one in whole] == [size, 0, len(renderer.render(rows[2])[0].ids)]
    monkeypatch.setattr(renderer, "render", None)
    found = select(whole, renderer, size, "skip")
    assert found.kept == list(whole[0].examples)
    assert [s["reason"] for s in found.skipped] == ["no_answer", "too_long"]


def test_rows_that_are_fitted_are_trained_and_named(renderer: Renderer) -> None:
    long = pair("What is it?\n\n" + "the dog and the fox " * 20, "So.", meta=Meta("a.jsonl", 4))
    found = build([long, pair("Why?", "So.")], renderer, 90, "trim-context")
    assert (found.rows, len(found.kept), found.skipped) == (2, 2, [])
    (note,) = found.fitted
    assert (note["id"], note["source"], note["line"], note["reason"]) == (long.id, "a.jsonl", 4, "trimmed")
    pieces = build([Row(text="the dog and the fox " * 20)], renderer, 30, "split")
    assert (pieces.rows, len(pieces.kept) > 3, pieces.fitted[0]["reason"]) == (1, True, "split")


def test_a_piece_that_cannot_be_made_leaves_its_row_out_and_says_why(renderer: Renderer) -> None:
    row = Row(text="密" * 30)
    whole = Rendered(row, tuple(renderer.render(row)))
    (skipped,) = select([whole], renderer, 2, "split").skipped
    assert (skipped["reason"], skipped["detail"]) == ("too_long", "'密' takes more than 1 tokens")


def test_tokens_are_counted_as_they_are_trained(renderer: Renderer) -> None:
    found = build([pair("Why?", "So."), pair("Why?", "So, so.")], renderer, 99)
    assert found.tokens == sum(len(e.ids) for e in found.kept)
    assert found.trained_tokens == sum(sum(e.mask) for e in found.kept)


def test_a_row_that_the_template_refuses_is_counted(qwen_dir: Path) -> None:
    tokenizer = Tokenizer.load(qwen_dir)
    refusing = "{% if messages[0].role == 'assistant' %}{{ raise_exception('first') }}{% endif %}"
    tokenizer.use_template(refusing + str(tokenizer.chat_template))
    found = build([Row((SAY, ASK, SAY)), Row((ASK, SAY))], Renderer(tokenizer), 99)
    assert (found.rows, [s["reason"] for s in found.skipped]) == (1, ["template"])


def test_preference_rows_are_refused_and_not_half_used(renderer: Renderer) -> None:
    row = Row((ASK,), chosen="a", rejected="b", meta=Meta("p.jsonl", 3))
    with pytest.raises(DataError, match=r"p\.jsonl:3: the set holds preference rows"):
        build([row], renderer, 99)


def test_a_failed_check_stops_the_run(qwen_dir: Path) -> None:
    tokenizer = Tokenizer.load(qwen_dir)
    tokenizer.backend.add_special_tokens(["<s>"])
    tokenizer.bos_token, tokenizer.bos_id = "<s>", tokenizer.backend.token_to_id("<s>")
    tokenizer.use_template("{{ bos_token }}{{ bos_token }}" + str(tokenizer.chat_template))
    with pytest.raises(ModelError, match="cannot be trained: it holds two BOS tokens in a row"):
        build([pair("Why?", "So.", meta=Meta("a.jsonl", 1))], Renderer(tokenizer), 99)


def test_a_probe_is_the_prompt_and_answer_of_the_last_answer(renderer: Renderer) -> None:
    row = Row((ASK, SAY, ASK))
    assert answered(row).messages == (ASK, SAY)
    prompt, answer = question_and_answer(answered(row), renderer)
    assert prompt == renderer.prompt([ASK])
    assert renderer.tokenizer.decode(answer) == "So."


def test_raw_text_is_probed_with_its_first_half(renderer: Renderer) -> None:
    row = Row(text="Some text to go on with.")
    (example,) = renderer.render(row)
    prompt, answer = question_and_answer(answered(row), renderer)
    assert prompt + answer == example.ids
    assert len(prompt) == len(example.ids) // 2
