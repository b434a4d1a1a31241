import pytest

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.diversity import diversity, neighbours
from tunesmith.prepare.topics import Topic, evenness, topics

COOKING = ["bake the bread", "knead the bread dough", "bread oven heat", "bread dough yeast", "bake dough in the oven"]
SAILING = ["hoist the sail", "trim the sail in wind", "sail against wind", "anchor and sail", "wind in the sail"]


def corpus(*questions: str) -> Corpus:
    return Corpus.of([pair(question, f"answer {i}", meta=Meta("f", i)) for i, question in enumerate(questions)])


def test_distinct_n_grams_are_counted_over_all_rows() -> None:
    facts = diversity(corpus("a b a b", "a b c"))
    spread = facts.facts["question"]
    assert isinstance(spread, dict)
    assert spread["distinct_1"] == round(3 / 7, 3)
    assert spread["distinct_2"] == round(3 / 6, 3)  # ab ba ab ba ab bc
    assert spread["distinct_3"] == round(3 / 5, 3)  # aba bab aba bab abc


def test_equal_and_near_questions_are_neighbours_from_the_threshold_on() -> None:
    rows = [pair(text, str(i)) for i, text in enumerate(["one", "One!", "two", "three", "four"])]
    numbers = [0, 0, 1, 2, 3]
    found = Corpus.of(rows, numbers, [(1, 2, 0.75), (2, 3, 0.6), (1, 9, 0.9)])
    assert neighbours(found, 0.7) == {0, 1, 2, 3}
    assert neighbours(found, 0.8) == {0, 1}
    axis = diversity(found)
    assert axis.facts["near_neighbour_share"] == 0.8
    assert "2 x 0.200 (rows without a near neighbour)" in axis.formula


def test_histograms_count_every_row_once() -> None:
    rows = [pair("one", "x " * n) for n in (1, 2, 3, 16, 31, 32, 5000)] + [Row((Message("user", " "),))]
    axis = diversity(Corpus.of(rows))
    assert axis.facts["words"] == {
        "question": {"0": 1, "1": 7},
        "answer": {"0": 1, "1": 1, "2-3": 2, "16-31": 2, "32-63": 1, "1024+": 1},
    }
    assert axis.facts["messages"] == {"1": 1, "2": 7}


def test_topics_are_found_named_and_thin_ones_told_with_places() -> None:
    many = [f"{text} number{i}" for i in range(16) for text in COOKING]
    few = [f"{text} place{i}" for i in range(1) for text in SAILING]
    found = topics(corpus(*many, *few))
    assert sum(len(topic.rows) for topic in found) == len(many) + len(few)
    named = {topic.name: topic for topic in found}
    assert any("sail" in name for name in named)
    assert not any("the" in name.split(", ") for name in named)
    assert found == topics(corpus(*many, *few))


def test_a_thin_topic_is_listed_with_what_to_do() -> None:
    many = [f"{word} thing{i % 7} of kind{i % 5}" for i in range(60) for word in ("bake", "sail", "paint", "plant")]
    axis = diversity(corpus(*many, "violin strings bow", "violin bow rosin", "violin strings rosin"))
    (told,) = [line for line in axis.lines if "violin" in line and line.startswith("thin")]
    assert "Fix: collect more of these" in told
    assert "f:240" in told


def test_few_rows_have_no_topics_and_it_says_so() -> None:
    assert topics(corpus("a", "b")) == []
    assert "topics: NOT RUN, fewer than 60 rows" in diversity(corpus("a", "b")).lines


def test_evenness_is_one_for_equal_sizes_and_less_for_others() -> None:
    def sized(*sizes: int) -> list[Topic]:
        return [Topic(str(n), tuple(range(n)), False) for n in sizes]

    assert evenness(sized(5, 5, 5)) == pytest.approx(1)
    assert evenness(sized(98, 1, 1)) < 0.2
    assert evenness(sized(3)) == 0


def test_raw_texts_have_one_side() -> None:
    axis = diversity(Corpus.of([Row(text="some words here"), Row(text="other words there")]))
    assert "text" in axis.facts
    assert "answer" not in axis.facts
    assert diversity(Corpus.of([])).score is None
