import pytest

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.residue import has_residue, unwrap

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
