import pytest

from tunesmith.collect.turns import Refused, content, present, turns
from tunesmith.core.records import Message

ASK, SAY = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


def plain(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


@pytest.mark.parametrize(
    "chat",
    [
        [ASK, SAY],
        [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
        [{"role": "Customer", "content": "Q"}, {"role": "agent", "content": "A"}],
        [{"from": "q", "value": "Q"}, {"from": "bing", "value": "A", "weight": 1, "train": True, "name": "b"}],
        [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, {**SAY, "tool_calls": []}],
        '[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]',
    ],
)
def test_dialects_of_chats_become_the_same_messages(chat: object) -> None:
    assert plain(turns(chat)) == [("user", "Q"), ("assistant", "A")]


def test_many_turns_are_kept_whole_with_the_system_message_of_another_column() -> None:
    made = turns([ASK, SAY, ASK, SAY], (Message("system", "S"),))
    assert [role for role, _ in plain(made)] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        (None, "no_messages"),
        ([], "no_messages"),
        ("not json", "message_shape"),
        ({"role": "user"}, "message_shape"),
        (["text"], "message_shape"),
        ([{"human": "Q", "assistant": "A"}], "message_shape"),
        ([ASK, ASK], "role_order"),
        ([SAY, ASK], "role_order"),
        ([ASK, {"role": "system", "content": "S"}], "role_order"),
        ([{"role": "system", "content": "S"}], "no_prompt"),
        ([{"role": "narrator", "content": "Q"}], "unknown_role"),
        ([{"role": "tool", "content": "42"}], "tools"),
        ([ASK, {**SAY, "tool_calls": [{"id": 1}]}], "tools"),
        ([ASK, {**SAY, "weight": 0}], "weights"),
        ([ASK, {**SAY, "train": False}], "weights"),
        ([{**ASK, "train": True}, SAY], "weights"),
        ([ASK, {**SAY, "train_detail": [{"begin_offset": 0}]}], "weights"),
        ([{**ASK, "name": "Ann"}, SAY, {**ASK, "name": "Bob"}, SAY], "names"),
        ([ASK, {**SAY, "reasoning_content": "hm"}], "reasoning"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "media"),
        ([{"role": "user", "content": None}], "null"),
    ],
)
def test_what_would_lose_something_is_refused_with_a_reason(chat: object, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        turns(chat)
    assert refused.value.reason == reason


def test_values_that_are_no_text_are_kept_as_json() -> None:
    assert [content(value, "x") for value in ("é", 3, True, {"é": 1}, [1])] == ["é", "3", "true", '{"é": 1}', "[1]"]
    with pytest.raises(Refused):
        content(float("nan"), "x")
    assert [present(value) for value in (None, "", [], {}, float("nan"))] == [False] * 5
    assert [present(value) for value in (0, False, "0")] == [True] * 3
