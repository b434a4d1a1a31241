import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunesmith.text import join as join_room
from tunesmith.text import minhash as minhash_room
from tunesmith.text import similar
from tunesmith.text.minhash import signatures
from tunesmith.text.similar import (
    UnionFind,
    cross_pairs,
    jaccard,
    near_pairs,
    normalise,
    shingle_sets,
    shingles,
    word_sets,
)

WORDS = ["reset", "password", "how", "do", "i", "my", "the", "account", "delete", "é", "密码", "🙂"]
questions = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("  What\tis\n this? ", "what is this"),
        ("Let’s GO — “now”", "lets go now"),
        ("ﬁne １２", "fine 12"),
        ("Straße", "strasse"),
        ("C# or C++?", "c# or c++"),
        ("-5 is not 5", "-5 is not 5"),
        ("a\u2011b", "a-b"),
        ("co\u00adop", "coop"),
        ("हिन्दी?", "हिन्दी"),
        ("???", "???"),
        ("", ""),
    ],
)
def test_normalise_folds_form_and_keeps_meaning(text: str, plain: str) -> None:
    assert normalise(text) == plain


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_ascii_is_folded_as_any_other_text(text: str) -> None:
    assert normalise(f"a {text} é") == f"{normalise(f'a {text}')} é"


def test_jaccard_of_four_grams_is_what_the_hand_counts() -> None:
    # abcde: abcd bcde; abcdf: abcd bcdf -> 1 shared of 3
    assert jaccard("abcde", "ABCDF!") == pytest.approx(1 / 3)
    assert jaccard("abcd", "abcd") == 1.0
    assert jaccard("abcd", "wxyz") == 0.0


def test_texts_below_four_characters_are_alike_only_when_equal() -> None:
    assert shingles("Hi!") == {"hi"}
    assert jaccard("hi", "Hi!") == 1.0
    assert jaccard("hi", "hii") == 0.0
    assert jaccard("", "") == 1.0
    assert jaccard("", "hi") == 0.0


def test_hashed_sets_have_the_sizes_of_the_string_sets() -> None:
    texts = ["", "hi", "aaaaaaa", "How do I reset my password?", "密码密码密码", "🙂🙂🙂🙂🙂"]
    assert shingle_sets(texts).sizes.tolist() == [len(shingles(text)) for text in texts]
    assert word_sets(texts).sizes.tolist() == [1, 1, 1, 6, 1, 1]


def test_equal_texts_are_tied_to_their_first_and_not_to_one_another() -> None:
    assert near_pairs(["Same?", "other text", "same", "SAME"], 0.9) == [(0, 2, 1.0), (0, 3, 1.0)]


@pytest.mark.parametrize("texts", [[], ["alone"], ["", ""]])
def test_few_texts_are_no_error(texts: list[str]) -> None:
    assert near_pairs(texts, 0.5) == [(0, 1, 1.0)] * (len(texts) == 2)


@settings(deadline=None)
@given(st.lists(questions, max_size=12, unique_by=normalise), st.sampled_from([0.7, 0.8, 0.9]))
def test_pairs_and_scores_are_those_of_comparing_all(texts: list[str], threshold: float) -> None:
    every = [(i, j, jaccard(texts[i], texts[j])) for i, j in itertools.combinations(range(len(texts)), 2)]
    wanted = [pair for pair in every if pair[2] >= threshold]
    found = near_pairs(texts, threshold)
    assert set(found) <= set(wanted)
    # what MinHash may miss lies just above the threshold: 1.5e-4 of the pairs at 0.7, nothing worth naming at 0.8
    assert all(score < 0.8 for *_, score in set(wanted) - set(found))
    sets = shingle_sets(texts)
    exact = sorted(pair for pair in cross_pairs(sets, sets, threshold) if pair[0] < pair[1])
    assert exact == wanted


@settings(deadline=None)
@given(st.lists(questions, max_size=8), st.lists(questions, max_size=8))
def test_cross_pairs_of_word_sets_miss_none(left: list[str], right: list[str]) -> None:
    def words(text: str) -> set[str]:
        return set(normalise(text).split()) or {""}

    wanted = {
        (i, j)
        for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right))
        if len(words(a) & words(b)) / len(words(a) | words(b)) >= 0.6
    }
    assert {(i, j) for i, j, _ in cross_pairs(word_sets(left), word_sets(right), 0.6)} == wanted


def test_agreement_of_signatures_estimates_jaccard() -> None:
    a = " ".join(f"word{i}" for i in range(300))
    b = " ".join(f"word{i}" for i in range(100, 400))
    sets = shingle_sets([a, b])
    signed = signatures(sets.values, sets.starts[:-1])
    assert signed.shape == (2, 128)
    assert np.mean(signed[0] == signed[1]) == pytest.approx(jaccard(a, b), abs=0.15)


def test_chunks_bound_the_memory_and_not_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"how do i change the colour of the button number {i}" for i in range(40)]
    whole = near_pairs(texts, 0.7)
    sets = shingle_sets(texts)
    crossed = list(cross_pairs(sets, sets, 0.7))
    for module, name, small in (
        (minhash_room, "CHUNK", 3),
        (join_room, "CHUNK", 3),
        (join_room, "PARTS", 50),
        (similar, "PARTS", 50),
        (similar, "CHARS", 100),
    ):
        monkeypatch.setattr(module, name, small)
    assert near_pairs(texts, 0.7) == whole
    assert len(whole) > 100
    assert list(cross_pairs(sets, sets, 0.7)) == crossed
    assert [pair for pair in crossed if pair[0] < pair[1]] == sorted(whole, key=lambda pair: (pair[1], pair[0]))
    parts = shingle_sets(texts)
    assert (parts.values.tolist(), parts.starts.tolist()) == (sets.values.tolist(), sets.starts.tolist())


@settings(max_examples=25, deadline=None)
@given(st.lists(questions, max_size=12, unique_by=normalise), st.sampled_from([0.5, 0.7, 0.9]))
def test_from_which_size_on_a_bucket_is_joined_changes_no_pair(texts: list[str], threshold: float) -> None:
    visited = near_pairs(texts, threshold)
    for large, buckets in ((0, 8), (3, 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(minhash_room, "LARGE", large)
            patch.setattr(join_room, "BUCKETS", buckets)
            assert near_pairs(texts, threshold) == visited


@pytest.mark.parametrize("large", [2, 50, 1 << 12])
def test_in_buckets_of_any_size_all_pairs_are_found(monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    rng = random.Random(0)
    frames = ["classify the sentiment of this: {}", "which of these is right? {}", "{}"]
    texts = [frames[i % 3].format(" ".join(rng.choices([*WORDS[:-3], "now", "then"], k=4))) for i in range(300)]
    texts = list({normalise(text): text for text in texts}.values())
    every = [(i, j, jaccard(texts[i], texts[j])) for i, j in itertools.combinations(range(len(texts)), 2)]
    wanted = [pair for pair in every if pair[2] >= 0.7]
    monkeypatch.setattr(minhash_room, "LARGE", large)
    assert near_pairs(texts, 0.7) == wanted
    assert len(wanted) > 300


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 2**48 - 1), min_size=1, max_size=40), min_size=2, max_size=6), st.data())
def test_marks_rule_out_no_pair_that_reaches_the_threshold(sets: list[set[int]], data: st.DataObject) -> None:
    a, b = data.draw(st.sampled_from(sets)), data.draw(st.sampled_from(sets))
    b = b | set(data.draw(st.lists(st.sampled_from(sorted(a)), max_size=40)))
    values = np.array([*sorted(a), *sorted(b)], dtype=np.uint64)
    bits = minhash_room.bitmaps(values, np.array([0, len(a)]))
    exact = len(a & b) / len(a | b)
    sizes = np.array([len(a) + len(b)], dtype=np.int32)
    assert minhash_room.may_reach(sizes, bits[:1] ^ bits[1:], exact).all()
    folded: NDArray[np.uint64] = np.bitwise_xor.reduce(bits, axis=1, keepdims=True)
    assert minhash_room.may_reach(sizes, folded[:1] ^ folded[1:], exact).all()


def test_another_process_finds_the_same_signatures() -> None:
    code = (
        "from tunesmith.text import minhash as m, similar as s\n"
        "sets = s.shingle_sets(['reset it', 'x'])\n"
        "print(m.signatures(sets.values, sets.starts[:-1]).sum())"
    )
    command = [sys.executable, "-c", code]
    runs = {subprocess.run(command, capture_output=True, check=True, env={"PYTHONHASHSEED": s}).stdout for s in "12"}
    assert len(runs) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_do_not_depend_on_the_order_of_the_unions(links: list[tuple[int, int]]) -> None:
    forward, backward = UnionFind(10), UnionFind(10)
    for i, j in links:
        forward.union(i, j)
    for i, j in reversed(links):
        backward.union(j, i)
    assert forward.groups() == backward.groups()
    assert sorted(itertools.chain(*forward.groups())) == list(range(10))
    assert all(forward.find(i) == group[0] for group in forward.groups() for i in group)
