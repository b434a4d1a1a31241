"""Blind votes: what is shown where, that nothing is lost, and what they become."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import write_jsonl
from tunesmith.core.records import Message, Row
from tunesmith.evaluate.ballot_page import plain, vote
from tunesmith.evaluate.votes import (
    GAP,
    REPEATS,
    Booth,
    Cast,
    VoteStore,
    ballots,
    consistency,
    first_votes,
    preferences,
)


def predictions(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"item-{n}",
            "prompt": f"Question {n}?",
            "group": f"g{n // 2}",
            "base": f"base says {n}",
            "tuned": f"tuned says {n}",
            "arms": {"bm25": f"tuned says {n}." if n % 2 else f"bm25 says {n}"},
        }
        for n in range(count)
    ]


@pytest.fixture
def make_eval(tmp_path: Path) -> Callable[..., Artifact]:
    def make(count: int = 60, name: str = "eval-1") -> Artifact:
        final = tmp_path / "evals" / name
        with writing(final) as work:
            write_jsonl(work / "predictions.jsonl", predictions(count))
            return seal(work, final, "eval", {"split": "test"})

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VoteStore]:
    opened = VoteStore(tmp_path / "tunesmith.db")
    yield opened
    opened.close()


@pytest.fixture
def open_booth(make_eval: Any, store: VoteStore) -> Callable[..., Booth]:
    evaluation = make_eval()
    pairs, _ = ballots(evaluation, ("base", "tuned"), {})
    return lambda rater="ann": Booth(store, evaluation, pairs, rater)


def finish(booth: Booth, prefer: str = "tuned") -> list[Any]:
    """Vote on everything; what was shown, in order."""
    seen = []
    while (shown := booth.next()) is not None:
        seen.append(shown)
        booth.choose(shown, "left" if shown.left == prefer else "right")
    return seen


def test_pairs_with_the_same_answer_are_a_tie_and_not_asked(make_eval: Any) -> None:
    found, equal = ballots(make_eval(10), ("tuned", "bm25"), {})
    assert (len(found), equal) == (5, 5)
    assert found[0].answers == {"tuned": "tuned says 0", "bm25": "bm25 says 0"}
    with pytest.raises(UsageError, match="no arm 'tund'"):
        ballots(make_eval(1, "eval-2"), ("base", "tund"), {})


def test_a_prompt_of_several_turns_is_taken_from_the_set(make_eval: Any) -> None:
    turns = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"))
    row = Row((*turns, Message("user", "Question 0?"), Message("assistant", "Gold.")))
    (first, second), _ = ballots(make_eval(2), ("base", "tuned"), {"item-0": row})
    assert first.prompt == row.messages[:-1]
    assert second.prompt == (Message("user", "Question 1?"),)


def test_the_side_is_the_same_for_one_rater_and_item_and_fair_over_all(open_booth: Any) -> None:
    first, again, other = (
        [(s.ballot.item, s.left) for s in finish_without_votes(open_booth(rater))] for rater in ("ann", "ann", "bob")
    )
    assert first == again
    assert dict(first) != dict(other)
    assert [item for item, _ in first] != [item for item, _ in other]
    assert 18 <= sum(left == "base" for _, left in first) <= 42  # 60 fair coins


def finish_without_votes(booth: Booth) -> list[Any]:
    return [booth._shown(item, again=False) for item in booth._ballots]


def test_every_pair_is_shown_once_and_some_again_with_the_sides_swapped(open_booth: Any) -> None:
    seen = finish(open_booth())
    first = {s.ballot.item: s for s in seen if not s.again}
    repeats = [(n, s) for n, s in enumerate(seen) if s.again]
    assert len(first) == 60
    assert 0 < len(repeats) < 60 * 3 * REPEATS
    for place, shown in repeats:
        before = next(n for n, s in enumerate(seen) if s.ballot.item == shown.ballot.item)
        assert place - before > GAP or place > 60
        assert (shown.left, shown.right) == (first[shown.ballot.item].right, first[shown.ballot.item].left)


def test_a_booth_that_is_opened_again_goes_on(open_booth: Any) -> None:
    booth = open_booth()
    for _ in range(4):
        booth.choose(booth.next(), "tie")
    assert open_booth().next() == booth.next()
    assert open_booth().progress() == {"voted": 4, "skipped": 0, "left": 56}
    assert open_booth("bob").progress()["voted"] == 0


def test_a_skipped_pair_comes_again_in_the_next_session_only(open_booth: Any) -> None:
    booth = open_booth()
    skipped = booth.next()
    booth.choose(skipped, "skip")
    assert booth.progress() == {"voted": 0, "skipped": 1, "left": 59}
    assert skipped.ballot.item not in [s.ballot.item for s in finish(booth)]
    assert booth.progress() == {"voted": 59, "skipped": 1, "left": 0}
    assert open_booth().next() == skipped


def test_undo_takes_the_last_choice_back_and_stays_in_the_store(open_booth: Any, store: VoteStore) -> None:
    booth = open_booth()
    assert not booth.undo()
    first = booth.next()
    booth.choose(first, "left")
    second = booth.next()
    booth.choose(second, "skip")
    assert booth.undo()
    assert booth.next() == second
    assert booth.undo()
    assert booth.next() == first
    assert store.standing() == []
    assert store._db.execute("SELECT choice FROM votes ORDER BY id").fetchall() == [
        ("left",), ("skip",), ("undo",), ("undo",)
    ]  # fmt: skip


def test_the_store_refuses_to_change_or_lose_a_vote(open_booth: Any, store: VoteStore) -> None:
    booth = open_booth()
    booth.choose(booth.next(), "left")
    for sql in ("UPDATE votes SET choice = 'right'", "DELETE FROM votes"):
        with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
            store._db.execute(sql)


def test_a_file_that_is_no_database_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "tunesmith.db").write_text("not a database, but long enough to look like one " * 9)
    with pytest.raises(UsageError, match="the votes cannot be opened"):
        VoteStore(tmp_path / "tunesmith.db")


def test_votes_on_other_answers_of_the_same_name_do_not_count(store: VoteStore, make_eval: Any) -> None:
    old, new = make_eval(4, "eval-1"), make_eval(5, "eval-2")
    pairs, _ = ballots(old, ("base", "tuned"), {})
    finish(Booth(store, old, pairs, "ann"))
    assert Booth(store, new, pairs, "ann").progress()["voted"] == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["left", "right", "tie", "both_bad", "skip", "undo"]), max_size=25))
def test_what_is_done_and_undone_always_adds_up(tmp_path_factory: pytest.TempPathFactory, moves: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("votes")
    with writing(folder / "eval-1") as work:
        write_jsonl(work / "predictions.jsonl", predictions(8))
        evaluation = seal(work, folder / "eval-1", "eval", {})
    pairs, _ = ballots(evaluation, ("base", "tuned"), {})
    store = VoteStore(folder / "tunesmith.db")
    booth, done = Booth(store, evaluation, pairs, "ann"), []
    for move in moves:
        if move == "undo":
            assert booth.undo() == bool(done)
            done = done[:-1]
        elif (shown := booth.next()) is not None:
            booth.choose(shown, move)
            done.append(move)
    assert sum(booth.progress().values()) == 8
    assert len(store.standing()) == len(done)
    assert [c.choice for _, c in booth.cast] == [move for move in done if move != "skip"]
    store.close()


def test_a_page_of_keys_votes_takes_back_and_stops(open_booth: Any) -> None:
    booth, keys, pages = open_booth(), iter(["a", "u", "A", "x", "\x1b[C", "s", "\x1b[B", "t", "q"]), []
    counts = vote(booth, lambda: next(keys), lambda shown, counts: pages.append(shown.ballot.item))
    assert counts == {"voted": 4, "skipped": 1, "left": 55}
    assert [c.choice for _, c in booth.cast] == ["left", "right", "both_bad", "tie"]
    assert pages[0] == pages[2] != pages[1]


def test_nothing_in_an_answer_reaches_the_terminal_but_text() -> None:
    assert plain("a\x1b[31mred\x07\r\nb\tc\x9b2J") == "a�[31mred�\nb\tc�2J"


# What votes become


def cast(choice: str, rater: str = "ann", item: str = "1", again: bool = False, flip: bool = False) -> Cast:
    told = {"prompt": [{"role": "user", "content": f"Question {item}?"}], "group": "g", "left": "one", "right": "two"}
    left, right = "base", "tuned"
    if flip:
        told |= {"left": "two", "right": "one"}
        left, right = right, left
    return Cast("eval-1", "h", rater, item, left, right, choice, again, json.dumps(told))


def test_a_vote_for_a_ranking_forgets_the_side() -> None:
    assert cast("left").vote({}) == cast("right", flip=True).vote({})
    assert cast("right").vote({"tuned": "run-1"}).b == "run-1"
    assert cast("right").vote({}).winner == "b"
    assert cast("both_bad", flip=True).vote({}).winner == "both_bad"


def test_preferences_are_the_majoritys_and_the_others_are_counted_by_reason() -> None:
    votes = [
        cast("right"), cast("left", "bob", flip=True), cast("left", "cyd"),  # two for "two", one for "one"
        cast("left", item="2"), cast("right", "bob", item="2"),  # one each
        cast("both_bad", item="3"), cast("left", "bob", item="3"),  # as many for neither
        cast("tie", item="4"), cast("left", "bob", item="4"),
        cast("skip", item="5"), cast("left", item="4", again=True),  # neither counts
    ]  # fmt: skip
    rows, rejects = preferences(votes)
    assert [(row.question, row.chosen, row.rejected) for row in rows] == [
        ("Question 1?", "two", "one"),
        ("Question 4?", "one", "two"),
    ]
    assert (rows[0].meta.origin, rows[0].meta.group) == ("human", "g")
    assert [(one.reason, one.raw) for one in rejects] == [("tie", "2"), ("both_bad", "3")]
    assert len(first_votes(votes)) == 9


def test_consistency_is_the_share_of_repeats_that_say_the_same() -> None:
    votes = [
        cast("left"), cast("right", again=True, flip=True),  # the same text both times
        cast("left", item="2"), cast("left", item="2", again=True, flip=True),  # the same side, the other text
        cast("tie", "bob"),
    ]  # fmt: skip
    ann, bob = consistency(votes)
    assert ann == {"rater": "ann", "repeats": 2, "same": 1, "first_slot": 0.75, "sided": 4}
    assert bob == {"rater": "bob", "repeats": 0, "same": 0, "first_slot": None, "sided": 0}


def test_one_who_always_presses_a_is_found_out_by_the_hidden_repeats(open_booth: Any) -> None:
    booth = open_booth()
    while (shown := booth.next()) is not None:
        booth.choose(shown, "left")
    (one,) = consistency([vote for _, vote in booth.cast])
    assert one["repeats"]
    assert (one["same"], one["first_slot"]) == (0, 1.0)
