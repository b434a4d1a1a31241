import json
import random
import re
import string
from pathlib import Path

import pytest

from tunesmith.metrics.overlap import words
from tunesmith.metrics.spelling import Lexicon, confused, in_dictionary, one_edit, slips, stumps, unknown

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
HERE = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, which is not part of the project")
NOTHING = Lexicon.of([])


@pytest.mark.parametrize(
    ("word", "other", "is_one"),
    [
        ("lever", "liver", True),
        ("form", "from", True),
        ("pasword", "password", True),
        ("cats", "cat", False),  # inflected
        ("walked", "walker", False),
        ("liver", "liver", False),
        ("wlak", "walk", True),
        ("abcd", "efgh", False),
    ],
)
def test_an_edit_is_one_letter_and_not_at_the_very_end(word: str, other: str, is_one: bool) -> None:
    assert one_edit(word, other) == is_one == one_edit(other, word)
    if is_one:
        assert stumps(word) & stumps(other)


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("colour", True),
        ("leaderboard", True),  # two usual words
        ("preprocess", True),
        ("dataset", True),
        ("someting", False),  # some + ting, but one letter from something
        ("helthy", False),
        ("patient's", True),
    ],
)
def test_the_dictionary_knows_british_modern_and_compound_words(word: str, known: bool) -> None:
    assert in_dictionary(word) == known


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tht dog sat wth us", ["tht", "wth"]),  # three letters, one from a very usual word
        ("the api and the xqz", []),
        ("Helthy food. A Kubernetess cluster.", ["helthy"]),  # a name is not at the start of a sentence
        ("We trust Lmaini here.", ["lmaini (for lamini?)"]),  # one letter from a name of the training answers
        ("call `helthy` at https://helthy.org/helthy", []),
    ],
)
def test_words_in_no_dictionary_are_found(text: str, found: list[str]) -> None:
    known = Lexicon.of(["Lamini is here."])
    assert sorted(map(str, unknown(text, frozenset(), known))) == sorted(found)


@pytest.mark.parametrize(
    ("text", "prompt", "reference", "known", "found"),
    [
        ("your lever is sick", "", "your liver is ill", "", ["lever (for liver?)"]),
        ("your lever is sick", "how is my liver?", "", "", ["lever (for liver?)"]),
        ("your lever is sick", "", "", "when your liver is weak", ["lever (for liver?)"]),
        ("your lever is sick", "", "", "the liver has lobes", []),  # never said between these two words
        ("your lever is sick", "", "", "your liver is weak, pull the lever", []),
        ("your lever and your liver", "my liver", "", "", []),  # both were meant
        ("we will than go", "", "we will then go", "", ["than (for then?)"]),
        ("we will than go", "we will then go", "", "", []),  # a usual word, and the prompt may be what to mend
        ("it is failing", "mend: it is flailing", "", "", []),  # the prompt's word is the rarer one
    ],
)
def test_a_real_word_is_wrong_beside_the_right_one(
    text: str, prompt: str, reference: str, known: str, found: list[str]
) -> None:
    lexicons = [Lexicon.of([one]) for one in (prompt, reference, known)]
    assert [str(slip) for slip in confused(text, *lexicons)] == found


def _typo(word: str, rng: random.Random) -> str:
    """One letter left out, added, replaced, or two neighbours swapped: another word in any case."""
    made = word
    while made == word:
        k = rng.randrange(len(word))
        letter = rng.choice(string.ascii_lowercase)
        made = rng.choice(
            [
                word[:k] + word[k + 1 :],
                word[:k] + letter + word[k:],
                word[:k] + letter + word[k + 1 :],
                word[:k] + word[k + 1 : k + 2] + word[k : k + 1] + word[k + 2 :],
            ]
        )
    return made


@HERE
def test_injected_typos_are_found() -> None:
    """One word of five letters or more in each human answer; a slip that gives another real word counts as missed."""
    rng = random.Random(0)
    rows = [json.loads(line) for line in (DATA / "lamini/lamini_docs.jsonl").read_text("utf-8").splitlines()]
    rng.shuffle(rows)
    known = Lexicon.of(row["answer"] for row in rows[400:])
    found = made = 0
    for row in rows[:400]:
        places = list(re.finditer(r"(?<![\w'/.@-])[a-z]{5,}(?![\w'/@.-]*[@/_])", row["answer"].split("http")[0]))
        if not places:
            continue
        place = rng.choice(places)
        typo = _typo(place[0], rng)
        text = row["answer"][: place.start()] + typo + row["answer"][place.end() :]
        made += 1
        found += typo in [slip.word for slip in slips(text, Lexicon.of([row["question"]]), NOTHING, known)]
    assert made > 350
    assert found >= 0.95 * made


@HERE
def test_clean_human_words_are_left_alone() -> None:
    rows = [json.loads(line) for line in (DATA / "lamini/lamini_docs.jsonl").read_text("utf-8").splitlines()]
    random.Random(1).shuffle(rows)
    known = Lexicon.of(row["answer"] for row in rows[400:])
    found = [slip for r in rows[:400] for slip in slips(r["answer"], Lexicon.of([r["question"]]), NOTHING, known)]
    assert len(found) <= 0.01 * sum(len(words(row["answer"])) for row in rows[:400])
