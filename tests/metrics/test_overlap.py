import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.metrics.overlap import Overlap, exact_match, length_ratio, normalise, rouge, token_f1, words

TEXT = st.text(max_size=60)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't stop: 3.5 km!", ["don", "t", "stop", "3", "5", "km"]),
        ("Cristóbal está", ["cristóbal", "está"]),
        ("Привет, МИР", ["привет", "мир"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # \w+ would drop the vowel signs
        ("日本語 text", ["日", "本", "語", "text"]),
        ("ﬁve snake_case", ["five", "snake_case"]),
        ("—…! 🙂", []),
    ],
)
def test_words_are_found_in_every_script(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_normalise_folds_width_case_spaces_and_the_last_full_stop() -> None:
    assert normalise("  Ｈello \n  WORLD. ") == "hello world"
    assert normalise("はい。") == "はい"
    assert normalise("3.5") == "3.5"
    assert normalise("...") == "..."


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("Paris.", "paris", 1.0),
        ("Paris!", " Paris ", 1.0),
        ("Paris, France", "Paris", 0.0),
        ("", "", 1.0),
        ("", "a", 0.0),
    ],
)
def test_exact_match(prediction: str, reference: str, value: float) -> None:
    assert exact_match(prediction, reference) == value


def test_f1_counts_each_word_as_often_as_it_stands() -> None:
    # shared: the, cat -> 2; 2 * 2 / (3 + 4)
    assert token_f1("the the cat", "The cat sat down") == pytest.approx(4 / 7)
    assert token_f1("cat", "dog") == 0.0
    assert token_f1("", "dog") == 0.0
    assert token_f1("🙂", "🙂") == 1.0


def test_rouge_gives_precision_recall_and_f1() -> None:
    # a b c d against a c b: ROUGE-1 3/4 and 3/3; no shared pair; the longest common sequence is a b or a c
    scores = rouge("a b c d", "a c b")
    assert scores["rouge1"] == Overlap(0.75, 1.0, pytest.approx(6 / 7))
    assert scores["rouge2"] == Overlap(0.0, 0.0, 0.0)
    assert scores["rougeL"] == Overlap(0.5, pytest.approx(2 / 3), pytest.approx(4 / 7))
    assert rouge("the cat sat", "the cat ran")["rouge2"] == Overlap(0.5, 0.5, 0.5)


def test_rouge_lsum_takes_each_line_by_itself() -> None:
    # the lines have changed places: the longest common sequence of the whole is 2 of 4 words, line by line 4 of 4
    scores = rouge("c d\na b", "a b\nc d")
    assert scores["rougeL"].f1 == 0.5
    assert scores["rougeLsum"].f1 == 1.0


def test_only_the_rouges_asked_for_are_computed() -> None:
    assert list(rouge("a", "a", ["rouge2"])) == ["rouge2"]


@pytest.mark.parametrize("text", ["Это не правда", "ไทย", "नमस्ते दुनिया", "yes", "🙂", ""])
def test_equal_texts_score_one_in_every_script_and_length(text: str) -> None:
    assert {overlap for overlap in rouge(text, text).values()} == {Overlap(1.0, 1.0, 1.0)}


def test_length_ratio_is_none_without_words_in_the_reference() -> None:
    assert length_ratio("one two three", "one two") == 1.5
    assert length_ratio("", "one two") == 0.0
    assert length_ratio("one", "?") is None


@settings(deadline=None)  # the first call imports rouge-score
@given(TEXT, TEXT)
def test_scores_lie_between_0_and_1_and_equal_texts_score_1(a: str, b: str) -> None:
    values = [
        exact_match(a, b),
        token_f1(a, b),
        *(v for o in rouge(a, b).values() for v in (o.precision, o.recall, o.f1)),
    ]
    assert all(0.0 <= value <= 1.0 for value in values)
    assert token_f1(a, b) == token_f1(b, a)
    assert token_f1(a, a) == exact_match(a, a) == rouge(a, a)["rougeL"].f1 == 1.0
