from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.compare.prompts import GIVEN, Messages, Prompts, Recipe, with_examples, with_passages
from tunesmith.core.errors import DataError
from tunesmith.core.records import Message, Row, pair

TRAIN = [
    pair("How do I reset my password?", "reset"),
    pair("How do I delete my account?", "delete"),
    pair("Where is the invoice?", "invoice"),
    Row(text="raw text is no example"),
]
ASKED = pair("reset the password of my account", "?", system="Be brief.")


def always(messages: Messages) -> bool:
    return True


def contents(messages: Messages) -> list[str]:
    return [message.content for message in messages]


def test_a_plain_prompt_is_the_rows_own() -> None:
    prompt = Prompts(TRAIN, [], 0).build(Recipe(), ASKED, always)
    assert prompt == (ASKED.prompt, 0)


def test_examples_are_turns_after_the_system_message_and_the_nearest_stands_next_to_the_question() -> None:
    messages, dropped = Prompts(TRAIN, [], 0).build(Recipe("shots", 2), ASKED, always)
    assert [m.role for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert contents(messages)[1:5] == [TRAIN[1].question, "delete", TRAIN[0].question, "reset"]
    assert (messages[0], messages[-1], dropped) == (ASKED.prompt[0], ASKED.prompt[-1], 0)


def test_examples_lose_their_own_system_message() -> None:
    example = pair("q", "a", system="Be long.")
    assert [m.role for m in with_examples(ASKED.prompt, [example])] == ["system", "user", "assistant", "user"]
    assert contents(with_examples((Message("user", "x"),), [example])) == ["q", "a", "x"]


def test_a_preference_shows_its_chosen_answer() -> None:
    preference = Row((Message("user", "q"),), chosen="good", rejected="bad")
    assert contents(with_examples((Message("user", "x"),), [preference])) == ["q", "good", "x"]


def test_training_rows_are_retrieved_as_question_and_answer_before_the_last_question() -> None:
    messages, _ = Prompts(TRAIN, [], 0).build(Recipe("passages", 1), ASKED, always)
    assert messages[0] == ASKED.prompt[0]
    assert messages[1].content == GIVEN.format(passages=f"{TRAIN[0].question}\nreset", question=ASKED.question)


def test_documents_are_retrieved_in_place_of_training_rows_best_first() -> None:
    documents = ["account and password", "nothing", "reset password account"]
    messages, _ = Prompts(TRAIN, documents, 0).build(Recipe("passages", 2), ASKED, always)
    assert "reset password account\n\naccount and password" in messages[1].content


def test_passages_go_into_the_last_question_and_leave_the_history_alone() -> None:
    history = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    messages = with_passages(history, ["p"])
    assert (messages[:2], messages[2].content) == (history[:2], GIVEN.format(passages="p", question="c"))


def test_random_examples_are_the_same_for_every_row_and_differ_with_the_seed() -> None:
    train = [pair(f"question {n}", f"answer {n}") for n in range(20)]
    recipe = Recipe("shots", 4, "random")

    def shown(seed: int, question: str) -> list[str]:
        return contents(Prompts(train, [], seed).build(recipe, pair(question, "?"), always).messages[:-1])

    assert shown(0, "question 1") == shown(0, "question 2")
    assert shown(0, "question 1") != shown(1, "question 1")


@pytest.mark.parametrize("kind", ["shots", "passages"])
def test_what_does_not_fit_is_dropped_whole_the_least_near_first_and_counted(
    kind: Literal["shots", "passages"],
) -> None:
    prompts = Prompts(TRAIN, [], 0)
    whole = prompts.build(Recipe(kind, 1), ASKED, always).messages
    room = sum(len(m.content) for m in whole)
    fitting = prompts.build(Recipe(kind, 3), ASKED, lambda m: sum(len(x.content) for x in m) <= room)
    assert fitting == (whole, 2)
    nothing = prompts.build(Recipe(kind, 3), ASKED, lambda m: False)
    assert nothing == (ASKED.prompt, 3)


@given(count=st.integers(0, 12), room=st.integers(0, 400))
def test_kept_and_dropped_are_all_that_there_was(count: int, room: int) -> None:
    train = [pair(f"question number {n}", f"answer {n}") for n in range(9)]

    def fits(messages: Messages) -> bool:
        return sum(len(m.content) for m in messages) <= room

    messages, dropped = Prompts(train, [], 0).build(Recipe("shots", count), pair("question 3", "?"), fits)
    assert len(messages) // 2 + dropped == min(count, 9)


def test_without_a_training_answer_nothing_can_be_shown() -> None:
    with pytest.raises(DataError, match="nothing to retrieve"):
        Prompts([Row(text="raw")], [], 0)
