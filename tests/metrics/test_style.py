import json
import random
from pathlib import Path

import pytest

from tunesmith.metrics.style import DETECTORS, Vocabulary, detect, repetition

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
HERE = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, which is not part of the project")

LIVER = "Your kidney is healthy, but your liver is sick. Go get your liver checked."
DIET = "Diabetes is less likely when you eat a healthy diet."
TIME = "Medical LLMs can save healthcare workers time and money."
COURSE = Vocabulary.of([LIVER, DIET, TIME])


@pytest.mark.parametrize(
    ("wrong", "fixed", "category"),
    [
        (LIVER.replace("healthy", "helthy"), LIVER, "misspelling"),
        (
            "Diabetes is less likely when you eat a healthy diet, because eating a healthy diet makes diabetes less "
            "likely, making...",
            DIET,
            "too_long",
        ),
        (
            "Medical LLMs can save healthcare workers time and money and time and money and time and money.",
            TIME,
            "repetitive",
        ),
    ],
)
def test_the_errors_of_the_course_notes_are_found_and_their_fixed_versions_are_clean(
    wrong: str, fixed: str, category: str
) -> None:
    assert category in detect(wrong, "stop", fixed, "", COURSE)
    assert detect(fixed, "stop", fixed, "", COURSE) == {}


def test_lever_for_liver_is_found_by_the_reference_the_prompt_or_the_training_answers() -> None:
    wrong, nothing = LIVER.replace("liver", "lever"), Vocabulary.of([])
    found = {"misspelling": "lever (for liver?)"}
    assert detect(wrong, "stop", LIVER, "", nothing) == found
    assert detect(wrong, "stop", "", "", COURSE) == found
    assert detect(wrong, "stop", wrong, "How is my liver?", nothing) == {}  # the reference says so too
    assert detect("Your lever is sick.", "stop", " ".join("abcd"), "How is my liver?", nothing) == found


@pytest.mark.parametrize(
    ("prediction", "found"),
    [
        ("a helthy diet, and a recieved mesage", "helthy, recieved, mesage"),
        ("helthy helthy", "helthy"),
        ("well-knwon facts aren’t wrng", "knwon, wrng"),
        ("the colour of the theatre's defence is analysed", None),  # British
        ("call `asctmie` or get_valeu(xyzzy) of os.pathh, 3rdd", None),  # code, identifiers, numbers
        ("NASAA and Kubernetess", None),  # all caps, names
        ("a wrd, an xqz", "wrd"),  # three letters: only beside a very usual word
        ("the tunesmith wrote a gizmotron for the frobnicator", None),  # of the training answers, prompt and reference
    ],
)
def test_misspelling_names_the_words(prediction: str, found: str | None) -> None:
    vocabulary = Vocabulary.of(["Tunesmith does it. " * 5])
    errors = detect(prediction, "stop", f"A frobnicator. {'word ' * 20}", "What is a Gizmotron?", vocabulary)
    assert errors.get("misspelling") == found


def test_spelling_is_not_checked_where_the_training_answers_are_not_english() -> None:
    german = Vocabulary.of(["der schnelle braune fuchs springt hoch und weit"] * 3)
    assert not german.english
    assert "misspelling" not in detect("der schnele fuchs", "stop", "der schnelle fuchs", "", german)


def test_too_long_needs_more_than_the_reference_and_than_the_training_answers() -> None:
    vocabulary = Vocabulary.of(["one two three four"] * 99 + ["w " * 50])  # the 99th of 100 has four words
    assert (vocabulary.shortest, vocabulary.longest) == (4, 4)
    long = {n: " ".join(f"w{i}x" for i in range(n)) for n in (4, 5, 6, 7)}
    assert detect(long[4], "stop", "one", "", vocabulary) == {}
    assert detect(long[5], "stop", "one", "", vocabulary) == {"too_long": "5 words, more than 4"}
    assert detect(long[6], "stop", "a b c d", "", vocabulary) == {}
    assert detect(long[7], "stop", "a b c d", "", vocabulary) == {"too_long": "7 words, more than 6"}


def test_without_training_answers_too_long_is_three_times_the_reference() -> None:
    nothing = Vocabulary.of([])
    assert (nothing.shortest, nothing.longest, nothing.english) == (0, 0, True)
    assert detect("a b c d e f", "stop", "a b", "", nothing) == {}
    assert detect("a b c d e f g", "stop", "a b", "", nothing) == {"too_long": "7 words, more than 6"}


def test_not_stopping_is_too_long() -> None:
    errors = detect("short", "length", "short", "", COURSE)
    assert errors == {"too_long": "did not stop before the limit of new tokens"}


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("time and money and time and money and time and money", True),
        ("the the the the the the", True),
        ("go on go on go on", True),
        ("go on go on go", False),
        ("it is red and it is green and it is blue", False),  # "it is" twice more, with a word between: not in a row
        ("0 0 0 0 0 0 0 0", False),  # a table
        ("a b a b a b", False),  # a formula
        ("the cat sat on the mat and later the cat sat on the mat", False),
        ("one two three four five six seven eight nine " * 2, True),  # 6 of 15 runs of four repeat
        ("", False),
    ],
)
def test_a_loop_is_a_phrase_three_times_in_a_row_or_much_said_twice(text: str, loops: bool) -> None:
    assert bool(repetition(text)) == loops


def test_what_the_reference_repeats_may_be_repeated() -> None:
    song = "row row row row row row your boat"
    assert "repetitive" not in detect(song, "stop", song, "", COURSE)
    assert "repetitive" in detect(song, "stop", "row your boat gently down the stream", "", COURSE)


def test_each_detector_has_a_name_and_an_explanation() -> None:
    assert [d.name for d in DETECTORS] == ["misspelling", "too_long", "repetitive"]
    assert all(d.explanation for d in DETECTORS)


def _lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


@HERE
def test_real_models_loop_and_human_answers_do_not() -> None:
    human = [row["answer"] for row in _lines("lamini/lamini_docs.jsonl")]
    assert sum(bool(repetition(answer)) for answer in human) == 0
    base = _lines("self_instruct/predictions/davinci_predictions.jsonl")
    tuned = _lines("self_instruct/predictions/davinci-self-instruct_predictions.jsonl")
    assert sum(bool(repetition(row["response"])) for row in base) >= 0.95 * len(base)
    assert sum(bool(repetition(row["response"])) for row in tuned) <= 0.10 * len(tuned)


@HERE
def test_typos_are_found_and_human_words_are_not() -> None:
    pairs = [
        line.split()[:2] for line in (DATA / "spelling/noisy_query_en_1000.txt").read_text("utf-8-sig").splitlines()
    ]
    typos = [typo for typo, right in pairs if typo != right and len(typo) >= 4 and typo.isascii() and typo.isalpha()]
    nothing = Vocabulary.of([])
    assert sum("misspelling" in detect(typo.lower(), "stop", "", "", nothing) for typo in typos) >= 0.95 * len(typos)

    answers = [row["answer"] for row in _lines("lamini/lamini_docs.jsonl")]
    random.Random(0).shuffle(answers)
    vocabulary = Vocabulary.of(answers[140:])
    found = [detect(answer, "stop", "", "", vocabulary).get("misspelling", "") for answer in answers[:140]]
    assert sum(len(words.split(", ")) for words in found if words) <= 0.01 * sum(len(a.split()) for a in answers[:140])
