"""What other tools read (reference/data.md §1.1), each convention as a row: taken whole, refused with a reason, or
asked about. A bad answer never becomes a target."""

import json
from typing import Any

import pytest

from tunesmith.collect.sniff import sniff
from tunesmith.collect.source import look
from tunesmith.collect.unpack import memory
from tunesmith.core.errors import DataError
from tunesmith.core.records import Reject, Row

ASK, SAY = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
HUMAN, GPT = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}
PAIR = [("user", "Q"), ("assistant", "A")]
SYSTEM = [("system", "S"), *PAIR]
ABOUT = [("user", "Q\n\nC"), ("assistant", "A")]


def items(row: dict[str, Any]) -> list[Row | Reject]:
    source = look(sniff(memory(json.dumps(row).encode(), "f")), {})
    return list(source.items())


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        # LLaMA-Factory
        ({"instruction": "Q", "input": "", "output": "A"}, PAIR),
        ({"instruction": "Q", "input": "C", "output": "A", "system": "", "history": []}, ABOUT),
        ({"instruction": "Q", "output": "A", "system": "S", "history": [["q", "a"]]},
         [("system", "S"), ("user", "q"), ("assistant", "a"), *PAIR]),
        ({"conversations": [HUMAN, GPT], "system": "S", "tools": "[]"}, SYSTEM),
        ({"conversations": [{"from": "system", "value": "S"}, HUMAN, GPT]}, SYSTEM),
        # axolotl
        ({"category": "C", "question": "Q", "answer": "A"}, PAIR),
        ({"INSTRUCTION": "Q", "RESPONSE": "A"}, PAIR),
        ({"instruction": "Q", "input": "C", "response": "A"}, ABOUT),
        ({"article": "Q", "summary": "A"}, PAIR),
        ({"message_1": "Q", "message_2": "A"}, PAIR),
        ({"system_prompt": "S", "question": "Q", "response": "A"}, SYSTEM),
        ({"article": "C", "question": "Q", "answer": "A"}, ABOUT),
        ({"context": "C", "question": "Q", "answer": "A"}, ABOUT),
        ({"prompt": "Q", "generation": "A"}, PAIR),
        ({"conversations": [{"role": "human", "value": "Q"}, {"role": "bot", "value": "A"}]}, PAIR),
        ({"messages": [{**ASK, "train": False}, {**SAY, "train": True, "weight": 1}]}, PAIR),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, SAY]}, PAIR),
        # TRL
        ({"prompt": "Q", "completion": "A"}, PAIR),
        ({"prompt": [ASK], "completion": [SAY]}, PAIR),
        ({"prompt": [{"role": "developer", "content": "S"}, ASK], "completion": [SAY]}, SYSTEM),
        # ms-swift
        ({"query": "Q", "response": "A", "system": "S", "history": [["q", "a"]]},
         [("system", "S"), ("user", "q"), ("assistant", "a"), *PAIR]),
        ({"problem": "Q", "solution": "A"}, PAIR),
        ({"question": "Q", "targets": "A"}, PAIR),
        ({"question": "Q", "answer_key": "A"}, PAIR),
        ({"question": "Q", "answers": ["A"]}, PAIR),
        ({"conversation": [{"role": "human", "content": "Q"}, {"role": "gpt", "content": "A"}]}, PAIR),
        # OpenAI, Bedrock, Together
        ({"messages": [{**ASK, "name": "ann"}, {**SAY, "weight": 1}], "tools": []}, PAIR),
        ({"system": [{"text": "S"}], "messages": [{"role": "user", "content": [{"text": "Q"}]}, SAY]}, SYSTEM),
        ({"messages": [ASK, SAY], "text": "<|user|>Q<|assistant|>A"}, PAIR),
        # the course
        ({"question": "Q", "answer": "A"}, PAIR),
        ({"input": "Q", "output": "A"}, PAIR),
    ],
)  # fmt: skip
def test_a_convention_is_taken_with_every_part(row: dict[str, Any], messages: list[tuple[str, str]]) -> None:
    (made,) = items(row)
    assert isinstance(made, Row), made
    assert [(message.role, message.content) for message in made.messages] == messages


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [ASK], "chosen": [SAY], "rejected": [{**SAY, "content": "B"}]},
        {"chosen": [ASK, SAY], "rejected": [ASK, {**SAY, "content": "B"}]},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "B"}},
        {"messages": [ASK, SAY], "rejected_response": "B"},
        {"query": "Q", "response": "A", "rejected_response": "B"},
        {
            "input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [SAY],
            "non_preferred_output": [{**SAY, "content": "B"}],
        },
    ],
)
def test_preferences_keep_the_better_and_the_worse_answer_apart(row: dict[str, Any]) -> None:
    (made,) = items(row)
    assert isinstance(made, Row), made
    assert (made.question, made.chosen, made.rejected) == ("Q", "A", "B")


def test_raw_text_is_taken() -> None:
    (made,) = items({"text": "Once."})
    assert isinstance(made, Row)
    assert made.text == "Once."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": [HUMAN, {"from": "function_call", "value": "f()"}, GPT]}, "tools"),
        ({"conversations": [HUMAN, {"from": "observation", "value": "3"}, GPT]}, "tools"),
        ({"conversations": [HUMAN, GPT], "tools": '[{"name": "f"}]'}, "tools"),
        ({"messages": [ASK, SAY], "tools": [{"type": "function"}]}, "tools"),
        ({"messages": [ASK, {**SAY, "tool_calls": [{"id": "1"}]}]}, "tools"),
        ({"messages": [ASK, {**SAY, "weight": 0}, ASK, SAY]}, "weights"),
        ({"messages": [ASK, {**SAY, "train": False}]}, "weights"),
        ({"messages": [ASK, {**SAY, "train_detail": [{"begin_offset": 0, "train": True}]}]}, "weights"),
        ({"messages": [{**ASK, "name": "ann"}, SAY, {**ASK, "name": "bob"}, SAY]}, "names"),
        ({"messages": [ASK, SAY], "text": "another text"}, "text"),
        ({"messages": [ASK, {**SAY, "thinking": "hm"}]}, "reasoning"),
        ({"messages": [ASK, SAY], "images": ["a.png"]}, "media"),
        ({"messages": [ASK, SAY], "chat_template_kwargs": {"enable_thinking": True}}, "template_kwargs"),
        ({"prompt": "Q", "completion": "A", "label": True}, "label"),
        ({"prompt": "Q", "completion": "A", "label": False}, "label"),
        ({"messages": [ASK, SAY], "label": True}, "label"),
        ({"instruction": "Q", "output": "A", "kto_tag": False}, "label"),
        ({"prompt": "Q", "completions": ["a", "b"], "labels": [True, False]}, "stepwise"),
        ({"input_ids": [1, 2], "attention_mask": [1, 1], "labels": [-100, 2]}, "tokenized"),
        ({"segments": [{"label": True, "text": "A"}]}, "segments"),
        ({"instruction": "Q", "output": "worse", "reflection": "R", "corrected": "A"}, "corrected"),
        ({"question": "Q", "choices": ["a", "b"], "solution": "a", "explanation": "E"}, "choices"),
        ({"question": "Q", "answers": ["a", "b"]}, "answers"),
    ],
)
def test_what_cannot_be_learnt_from_yet_is_refused_with_its_line_and_reason(row: dict[str, Any], reason: str) -> None:
    (left,) = items(row)
    assert isinstance(left, Reject), left
    assert (left.line, left.reason) == (1, reason)


@pytest.mark.parametrize(
    ("row", "flag"),
    [
        ({"article": "Text.", "unanswerable_question": "Who?"}, "--map prompt="),
        ({"prompt": "Q?"}, "none looks like an answer"),
        ({"query": "Q?", "text": "A long answer here."}, "--map prompt=query --map completion=text"),
        ({"query": "Q?", "content": "A long answer here."}, "--map prompt=query --map completion=content"),
    ],
)
def test_what_is_not_sure_is_asked_with_the_flag_to_type(row: dict[str, Any], flag: str) -> None:
    with pytest.raises(DataError, match="which columns hold prompt and answer") as error:
        items(row)
    assert flag in str(error.value)
