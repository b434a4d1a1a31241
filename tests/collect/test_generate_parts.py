"""The parts of generate, by hand-computed values: what is new, what JSON is in an answer, what a document holds."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.collect.asking import items, rows_of
from tunesmith.collect.grounding import LEAST, MOST, about_text, chunks, unsupported
from tunesmith.collect.novel import NEAR, Novel, rouge_l
from tunesmith.collect.recipes import weak
from tunesmith.metrics.overlap import rouge, words
from tunesmith.text.similar import jaccard

DOCS = Path(__file__).resolve().parents[2] / "../shared/data/lamini/docs"
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the metrics room loads nltk
@given(WORDS, WORDS)
def test_rouge_l_is_that_of_the_metrics_room(a: list[str], b: list[str]) -> None:
    assert rouge_l(a, b) == pytest.approx(rouge(" ".join(a), " ".join(b))["rougeL"].f1)


@given(st.lists(WORDS.map(" ".join), max_size=8), WORDS.map(" ".join), st.sampled_from([0.3, 0.7, 0.9]))
def test_what_is_new_is_decided_as_if_all_were_compared(known: list[str], text: str, most: float) -> None:
    def near(other: str) -> bool:
        return rouge_l(words(other), words(text)) > most or jaccard(other, text) >= NEAR

    assert bool(Novel(most, known).alike(text)) == any(map(near, known))


def test_what_is_alike_is_named() -> None:
    novel = Novel(0.7, ["How do I reset my password?"])
    assert novel.alike("how do i reset my passwords").endswith("of the 4-grams of: How do I reset my password?")
    assert novel.alike("How do I now reset my old password?").startswith("ROUGE-L 0.86 with")
    assert novel.alike("Where is the exit?") == ""
    assert Novel(0.7).alike("anything") == ""


def test_an_element_of_another_form_is_told_apart() -> None:
    schema = rows_of(number="integer", question="string")
    value = {"rows": [{"number": "2", "question": " a "}, {"number": True, "question": "a"}, {"question": "a"}, 3]}
    assert list(items(value, schema)) == [{"number": 2, "question": "a"}, None, None, None]


SOURCE = "The Lamini LLM engine (v2.1) supports 3 models in Python, 10 to 20 times faster. It costs 1,200 EUR."


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ("Lamini's engine supports three models.", []),
        ("The LLMs run in Python.", []),
        ("It is Python-based.", []),
        ("It costs 1200 EUR.", []),
        ("It costs 1300 EUR.", ["1300"]),
        ("Use GPT-4 with it.", ["GPT-4"]),
        ("Call load_model first.", ["load_model"]),
        ("From 10 to 30 times.", ["30"]),
        ("It also runs on Windows.", ["Windows"]),
        ("Windows is no name where a sentence begins.", []),
        ("1. Open it\n2. Close it", []),
        ("I think I know.", []),
    ],
)
def test_numbers_and_names_that_a_source_does_not_hold_are_found(said: str, missing: list[str]) -> None:
    assert unsupported(said, SOURCE) == missing


@given(st.text(max_size=60))
def test_a_text_supports_itself(text: str) -> None:
    assert unsupported(text, text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("According to the text, it is red.", "According to the text"),
        ("What does this passage say?", "this passage say"),
        ("What is mentioned in the document?", "mentioned in the document"),
        ("The passage states that it is red.", "The passage states"),
        ("How do I upload the document?", ""),
        ("The text field is red.", ""),
    ],
)
def test_talk_about_the_text_is_found(text: str, found: str) -> None:
    assert about_text(text) == found


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@given(st.lists(st.sampled_from(["# A", "## B", "word " * 90, "x" * 5000, "", "```\n\nx\n```", "- a"]), max_size=20))
def test_pieces_hold_all_of_a_document_once_and_none_is_too_long(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = list(chunks("d", text))
    assert squeezed("".join(chunk.text for chunk in found)) == squeezed(text)
    assert all(len(chunk.text) <= MOST + 200 for chunk in found)
    assert [chunk.number for chunk in found] == list(range(1, len(found) + 1))


def test_pieces_end_at_headings_and_know_where_they_are() -> None:
    section = "A sentence of some length, about nothing. " * 65
    text = f"# Guide\n\n## One\n\n{section}\n\n## Two\n\n{section}\n\n### Deep\n\nshort"
    one, two = chunks("guide.md", text)
    assert LEAST <= len(one.text) <= MOST
    assert (one.headings, one.place) == (("Guide",), "guide.md#1")
    assert one.text.startswith("# Guide")
    assert two.headings == ("Guide", "Two")
    assert two.text.endswith("### Deep\n\nshort")


def test_a_heading_inside_code_is_none() -> None:
    (only,) = chunks("d", "# Top\n\n```\n# a comment\n\nmore\n```\n\nafter")
    assert only.headings == ("Top",)


@pytest.mark.skipif(not DOCS.is_dir(), reason="no shared/data/lamini/docs beside the checkout")
def test_real_documents_support_their_own_pieces() -> None:
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text("utf-8")
        found = list(chunks(path.name, text))
        assert squeezed("".join(chunk.text for chunk in found)) == squeezed(text)
        sample = random.Random(0).sample(found, min(3, len(found)))
        assert [unsupported(chunk.text, chunk.whole) for chunk in sample] == [[]] * len(sample)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Yes.", "hardly an answer"),
        ("You open the settings, choose Account and then press the", "cut off in the middle of a sentence"),
        ("As an AI language model, I have no opinion on it.", "boilerplate"),
        ("go there go there go there go there.", "repeats itself: 'go there' 3 times or more in a row"),
        ("Open the settings, choose Account, and press Reset.", ""),
        ("Paris it is", ""),
    ],
)
def test_weak_answers_are_told_with_the_reason(answer: str, reason: str) -> None:
    assert weak(answer) == reason
