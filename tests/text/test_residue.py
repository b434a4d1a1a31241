import pytest

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.text.residue import control_tokens, has_residue, unwrap

WRAPPED = {
    "question": "### Question:\n{}\n\n### Answer:",
    "instruction": "### Instruction:\n{}\n\n### Response:\n",
    "alpaca": "Below is an instruction that describes a task.\n\n### Instruction:\n{}\n\n### Response:",
    "inst": "<s>[INST] {} [/INST]",
    "chatml": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "human": "\n\nHuman: {}\n\nAssistant:",
}


def row(question: str, answer: str = "A", source: str = "f") -> Row:
    return pair(question, answer, meta=Meta(source=source, line=1))


@pytest.mark.parametrize("name", WRAPPED)
def test_each_template_is_taken_off_to_the_bare_question(name: str) -> None:
    made = unwrap([row(WRAPPED[name].format(f"What is {i}?\nAnd then?")) for i in range(3)])
    assert [r.question for r in made.rows] == [f"What is {i}?\nAnd then?" for i in range(3)]
    assert made.count == 3
    assert len(made.names) == 1


def test_alpaca_input_is_kept_after_the_instruction() -> None:
    made = unwrap([row("### Instruction:\nTranslate.\n\n### Input:\nhello\n\n### Response:")])
    assert made.rows[0].question == "Translate.\n\nhello"


@pytest.mark.parametrize(
    "text",
    [
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ],
)
def test_a_system_message_inside_a_template_becomes_one(text: str) -> None:
    (made,) = unwrap([row(text)]).rows
    assert made.messages == (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "A"))
    own = Row((Message("system", "Mine."), *row(text).messages))
    assert unwrap([own]).rows == [own]


def test_rows_without_a_question_wear_the_template_too() -> None:
    made = unwrap([row(WRAPPED["question"].format(text)) for text in ("a", "", "  ")])
    assert [r.question for r in made.rows] == ["a", "", ""]
    assert made.count == 3


@pytest.mark.parametrize(("bare", "count"), [(1, 19), (2, 0)])
def test_ninety_five_percent_of_a_file_must_wear_it(bare: int, count: int) -> None:
    rows = [row(WRAPPED["question"].format(i)) for i in range(20 - bare)] + [row("bare")] * bare
    made = unwrap(rows)
    assert made.count == count
    assert sum(has_residue(r) for r in made.rows) == 20 - bare - count


def test_each_file_is_judged_on_its_own() -> None:
    worn = [row(WRAPPED["human"].format(i), source="old") for i in range(3)]
    made = unwrap([*worn, *(row(f"bare {i}", source="new") for i in range(30))])
    assert made.count == 3
    assert made.names == ("old: Human / Assistant",)


def test_a_flattened_conversation_is_left_alone() -> None:
    flat = row("Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:")
    assert unwrap([flat]).rows == [flat]
    assert has_residue(flat)


def test_end_of_turn_tokens_are_cut_from_answers_and_preferences() -> None:
    made = unwrap([row("Q", "A</s>"), row("Q", "B <|im_end|>\n<|endoftext|>")])
    assert [r.answer for r in made.rows] == ["A", "B"]
    chosen = Row((Message("user", "Q"),), chosen="A</s>", rejected="B</s>")
    assert [(r.chosen, r.rejected) for r in unwrap([chosen]).rows] == [("A", "B")]
    some = [row("Q", "<s>struck</s>"), row("Q", "plain")]
    assert unwrap(some).rows == some


@pytest.mark.parametrize("text", ["I ask: what?", "a ### b", "Humans: all", "if a < s > b", "[INSTALL]"])
def test_plain_text_has_no_residue(text: str) -> None:
    assert not has_residue(row(text))


MORE = {
    "gemma": "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "phi": "<|user|>\n{}<|end|>\n<|assistant|>\n",
    "zephyr": "<|user|>\n{}</s>\n<|assistant|>\n",
    "guanaco": "### Human: {} ### Assistant:",
    "vicuna": "USER: {} ASSISTANT:",
    "question": "Q: {}\nA:",
}


@pytest.mark.parametrize("name", MORE)
def test_templates_of_other_families_are_taken_off_too(name: str) -> None:
    made = unwrap([row(MORE[name].format(f"What is {i}?\nAnd then?")) for i in range(3)])
    assert [r.question for r in made.rows] == [f"What is {i}?\nAnd then?" for i in range(3)]


@pytest.mark.parametrize("name", ["guanaco", "vicuna", "question"])
def test_a_second_turn_inside_a_template_is_not_flattened(name: str) -> None:
    answered = MORE[name].format("a") + " b\n"
    flat = row(answered + MORE[name].format("c"))
    assert unwrap([flat]).rows == [flat]


def test_marks_before_the_answer_are_cut() -> None:
    made = unwrap([row("Q", "### Answer:\nA"), row("Q", "### Response: B")])
    assert [r.answer for r in made.rows] == ["A", "B"]
    assert made.names == ("f: the template's mark before the answer",)


def test_every_mark_has_a_hint_that_finds_it() -> None:
    marked = [text.format("x") for text in [*WRAPPED.values(), *MORE.values()] if not text.startswith("Q:")]
    assert all(has_residue(row(text)) for text in marked)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("say <|endoftext|> twice <|endoftext|>", ["<|endoftext|>"]),
        ("<s>struck</s> [INST]", ["<s>", "</s>", "[INST]"]),
        ("<think>hm</think>", ["<think>", "</think>"]),
        ("a <| b |> c, [1], <b>, list[MASKED]", []),
    ],
)
def test_control_token_strings_are_listed_once(text: str, found: list[str]) -> None:
    assert control_tokens(row(text)) == found
    assert control_tokens(Row((Message("user", "Q"),), chosen="A", rejected=text)) == found


@pytest.mark.timeout(20)
@pytest.mark.parametrize("start", ["Q:", "### Question:", "### Instruction:", "Human:", "USER:", "[INST]", "<|user|>"])
@pytest.mark.parametrize("blank", ["\n", " ", "\n ", "### ", "Assistant "])
def test_long_runs_of_blanks_take_no_longer_than_other_text(start: str, blank: str) -> None:
    text = start + blank * 20_000 + "x"
    assert unwrap([row(text, "a" + blank * 20_000 + "b")]).count == 0
