from collections.abc import Iterator

from tunesmith.core.records import pair
from tunesmith.diagnose.fixes import Proposal
from tunesmith.diagnose.review import changes, review

OLD, NEW = pair("q", "one two three"), pair("q", "one two")
PROPOSALS = [
    *(Proposal(f"a-{n}", "a", "edit", "why", OLD, NEW) for n in range(3)),
    Proposal("b-1", "b", "drop", "why", OLD),
    Proposal("b-2", "b", "add", "why", None, NEW),
]


def typed(*keys: str) -> list[str]:
    """The ids that are accepted after these keys and lines; every proposal that is shown is remembered."""
    said: Iterator[str] = iter(keys)
    return [p.id for p in review(PROPOSALS, lambda _: next(said, "q"), lambda *_: None)]


def test_each_proposal_is_accepted_or_refused() -> None:
    assert typed("y", "n", "y", "n", "y") == ["a-0", "a-2", "b-2"]


def test_a_whole_category_is_accepted_or_refused_at_once() -> None:
    assert typed("a", "s") == ["a-0", "a-1", "a-2"]
    assert typed("n", "a", "n", "y") == ["a-1", "a-2", "b-2"]


def test_undo_takes_back_the_last_thing_that_was_said() -> None:
    assert typed("y", "u", "n", "s", "s") == []
    assert typed("a", "u", "n", "n", "n", "a") == ["b-1", "b-2"]
    assert typed("u", "a", "a") == [p.id for p in PROPOSALS]


def test_quitting_leaves_the_rest_out_and_other_keys_ask_again() -> None:
    assert typed("y", "?", "", "q") == ["a-0"]


def test_an_edit_is_accepted_with_the_new_text_and_a_drop_cannot_be_edited() -> None:
    said = iter(["e", "four", "e", "", "s", "e", "y", "n"])
    first, second, third = review(PROPOSALS, lambda _: next(said), lambda *_: None)
    assert first.new is not None
    assert first.new.answer == "four"
    assert (second.new, third.id) == (NEW, "b-1")


def test_what_goes_is_red_and_what_comes_is_green() -> None:
    assert changes(Proposal("a", "a", "edit", "", OLD, pair("q", "one five"))) == [
        ("", "one "),
        ("red strike", "two three "),
        ("green", "five "),
    ]
