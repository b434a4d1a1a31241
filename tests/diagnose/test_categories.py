import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.records import Meta, pair
from tunesmith.diagnose.categories import CATEGORIES, Known, find
from tunesmith.metrics.style import Answer

GUARD = "Let's keep the discussion relevant to gardens."
LABELLED = [pair(f"review {n}", ("positive", "negative")[n % 2]) for n in range(10)]
GARDEN = [
    *(pair(f"off topic {n}", GUARD) for n in range(5)),
    pair(
        "How often do I water a fern?", "Water a fern every two days, and more often when it is hot.", meta=Meta("a", 7)
    ),
]
NOTHING, KNOWN, LABELS = Known.of([]), Known.of(GARDEN), Known.of(LABELLED)
DAY = "Water it every day in the morning, and never at noon."


def errors(
    said: str, reference: str = "", prompt: str = "", finish: str = "", known: Known = NOTHING
) -> dict[str, str]:
    return find(Answer(said, finish, reference, prompt, known.vocabulary), known)


def test_the_table_names_every_category_of_the_contract_once() -> None:
    names = [category.name for category in CATEGORIES]
    said = "misspelling too_long too_short repetitive did_not_stop prompt_echo empty off_topic refusal wrong_format"
    assert " ".join(names) == f"{said} wrong_value copied"
    assert all(category.explanation for category in CATEGORIES)


def test_too_short_mirrors_too_long() -> None:
    reference = "one two three four five six seven eight nine"
    assert errors("one two three", reference) == {}
    assert errors("one two", reference) == {"too_short": "2 words, fewer than 3"}
    trained = Known.of([pair(str(n), f"a b c d e f g{n}") for n in range(100)])
    assert "too_short" in errors("one two three four five", reference, known=trained)
    assert "too_short" not in errors("one two three four five six", reference, known=trained)


@pytest.mark.parametrize(
    ("said", "prompt", "reference", "evidence"),
    [
        ("yes\nInput: more", "Is it?\nInput: this\nOutput:", "", "goes on with 'Input:'"),
        ("yes\nInput: more", "Is it?", "", None),  # no label of the prompt
        ("yes\nInput: more", "Is it?\nInput: this\nOutput:", "yes\nInput: other", None),  # the reference has it
        ("yes\n### Question:\nWhat else?", "Is it?", "", "goes on with '### Question:'"),
        ("yes<|im_end|>\n<|im_start|>user", "Is it?", "", "goes on with '<|im_end|>'"),
        ("Dear Anna: yes", "Dear: write a letter", "", None),
    ],
)
def test_what_goes_on_with_the_next_turn_did_not_stop(
    said: str, prompt: str, reference: str, evidence: str | None
) -> None:
    assert errors(said, reference, prompt).get("did_not_stop") == evidence


def test_what_was_cut_at_the_limit_did_not_stop() -> None:
    assert "did_not_stop" in errors("it goes on and", "", finish="length")
    assert "did_not_stop" not in errors("it stops.", "", finish="stop")


def test_an_echo_is_the_prompt_or_its_first_sentence_said_again() -> None:
    prompt = "Tell me how a fern grows in the shade. Be brief.\nOutput:"
    echo = "Tell me how a fern grows in the shade! It grows."
    assert "prompt_echo" in errors(echo, "", prompt)
    assert "prompt_echo" not in errors(echo, echo, prompt)
    assert "prompt_echo" not in errors("A fern grows in the shade.", "", prompt)
    assert "prompt_echo" not in errors("Be brief.", "", "Be brief.")  # too short to be an echo


@pytest.mark.parametrize(("said", "is_empty"), [("", True), (" \n", True), ("...", True), ("( )", True), ("7", False)])
def test_nothing_but_marks_is_empty_and_has_no_other_error(said: str, is_empty: bool) -> None:
    assert list(errors(said, "a b c d e f g h i j")) == (["empty"] if is_empty else ["too_short"])


def test_a_missed_guard_is_off_topic_and_a_paraphrased_one_is_not() -> None:
    asked = "Who won the last football final?"
    assert "off_topic" in errors("The garden club won it.", GUARD, asked, known=KNOWN)
    assert errors(GUARD, GUARD, asked, known=KNOWN) == {}
    assert "off_topic" not in errors("Let's keep our discussion relevant to gardens", GUARD, asked, known=KNOWN)


def test_no_word_in_common_with_question_and_reference_is_off_topic() -> None:
    said = "Several football players scored yesterday evening."
    assert "off_topic" in errors(said, "Water ferns every morning.", "How do I water ferns?")
    assert "off_topic" not in errors(f"{said} Watering helps.", "Water ferns every morning.", "How do I water ferns?")


def test_a_guard_where_an_answer_is_wanted_is_a_refusal() -> None:
    assert errors(GUARD, DAY, "How often do I water it?", known=KNOWN).keys() == {"refusal"}
    assert "refusal" in errors("As an AI language model, I cannot water plants.", DAY)
    assert "refusal" not in errors("I'm sorry, but I can't.", "I'm sorry, but I can't help.")


@pytest.mark.parametrize(
    ("said", "reference", "known", "evidence"),
    [
        ('{"a": 1}', '{"a": 2}', NOTHING, None),
        ('Sure: {"a": 1}', '{"a": 2}', NOTHING, "not JSON"),
        ("colour: red", "colour: red\nsize: 3", NOTHING, "without the fields size"),
        ("rather good", "positive", LABELS, "none of the labels negative, positive"),
        ("negative", "positive", LABELS, None),
        ("many", "12", NOTHING, "not a number"),
    ],
)
def test_the_format_is_that_of_the_reference(said: str, reference: str, known: Known, evidence: str | None) -> None:
    assert errors(said, reference, known=known).get("wrong_format") == evidence


@pytest.mark.parametrize(
    ("said", "reference", "prompt", "known", "evidence"),
    [
        ("It takes 30 days.", "It takes 14 days.", "", NOTHING, "30 for 14"),
        ("It takes 30 days.", "It takes 14 days.", "Is it 30 days?", NOTHING, None),
        ("It takes 14 days.", "It takes 14 days, or 20.", "", NOTHING, None),
        ("It costs 1,000.", "It costs 1000.", "", NOTHING, None),
        ("1. Wait", "Wait 5 days", "", NOTHING, None),  # the number of a list's item
        ("Ask for Berta there.", "Please ask for Anton there.", "", NOTHING, "Berta for Anton"),
        ("colour: red", "colour: blue", "", NOTHING, "colour: red for blue"),
        ("negative", "positive", "", LABELS, "negative for positive"),
    ],
)
def test_a_wrong_value_is_named_beside_the_right_one(
    said: str, reference: str, prompt: str, known: Known, evidence: str | None
) -> None:
    assert errors(said, reference, prompt, known=known).get("wrong_value") == evidence


def test_a_training_answer_to_another_question_is_copied() -> None:
    fern = GARDEN[-1].answer
    assert errors(fern, DAY, known=KNOWN)["copied"] == "the answer of a:7"
    assert "copied" not in errors(fern, fern, known=KNOWN)
    assert "copied" not in errors(GUARD, DAY, known=KNOWN)
    assert "copied" not in errors(fern, DAY)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(max_size=60))
def test_the_reference_itself_has_none_of_the_errors_that_compare_with_it(text: str, prompt: str) -> None:
    compared = {category.name for category in CATEGORIES if "reference" in category.needs}
    assert not compared & errors(text, text, prompt).keys()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(max_size=60), st.text(max_size=60), st.sampled_from(["", "stop", "length"]))
def test_any_text_can_be_judged_and_twice_alike(said: str, reference: str, prompt: str, finish: str) -> None:
    found = errors(said, reference, prompt, finish, KNOWN)
    assert found == errors(said, reference, prompt, finish, KNOWN)
    assert all(found.values())
