from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.records import pair
from tunesmith.diagnose.causes import Index
from tunesmith.diagnose.clusters import clusters

FERN = pair("How do I water a fern?", "Every two days.")
ROSE = pair("How do I prune a rose?", "In early spring.")
BILL = pair("Where is my invoice?", "Under the billing page.")


class Meaning:
    """A vector that says whether a text is about money."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        money = [float(any(word in text for word in ("invoice", "billing", "pay"))) for text in texts]
        return np.array([[one, 1 - one] for one in money], dtype=np.float32)


def test_the_nearest_row_shares_words_of_the_question_or_of_the_wrong_answer() -> None:
    index = Index([FERN, ROSE, BILL])
    (asked,), (answered,), nothing = index.nearest(
        [("water my fern", ""), ("tell me", "under the billing"), ("xyzzy", "")], count=1
    )
    assert (asked.row, answered.row) == (FERN, BILL)
    assert nothing == []


def test_meaning_finds_what_words_do_not() -> None:
    ((near,),) = Index([FERN, ROSE, BILL], Meaning()).nearest([("What must one pay?", "")], count=1)
    assert near.row == BILL


def test_there_may_be_no_rows_and_nothing_to_ask() -> None:
    assert Index([]).nearest([("a", "b")], count=3) == [[]]
    assert Index([FERN]).nearest([], count=3) == []


QUESTIONS = [*(f"how do I water plant {n}" for n in range(8)), *(f"where is invoice number {n}" for n in range(8))]


def test_every_text_is_in_one_cluster_that_is_named_by_its_own_words() -> None:
    found = clusters(QUESTIONS)
    assert sorted(member for cluster in found for member in cluster.members) == list(range(16))
    for cluster in found:
        assert len({member < 8 for member in cluster.members}) == 1  # plants and invoices are apart
        assert ("water" in cluster.name) == (cluster.members[0] < 8)
    assert found == clusters(QUESTIONS)


def test_clusters_by_meaning_and_of_few_texts() -> None:
    named = clusters(
        ["please pay", "the invoice", "a rose", "a fern", "my billing", "some moss", "to pay", "a tree"], Meaning()
    )
    assert {cluster.members for cluster in named} == {(0, 1, 4, 6), (2, 3, 5, 7)}
    assert clusters([]) == []
    assert [cluster.members for cluster in clusters(["one thing", "two"])] == [(0, 1)]
