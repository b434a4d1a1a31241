from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.groups import alike, asked, drop_near, group, questions, same_words

LONG = "Please read the following customer message and say whether it is a complaint or praise"


def row(question: str, answer: str = "A", line: int = 1, group: str = "") -> Row:
    return pair(question, answer, meta=Meta("f", line, group=group))


def names(rows: list[Row], previous: dict[str, list[Row]], threshold: float = 0.7) -> tuple[list[Row], dict[str, str]]:
    asking = questions(rows, previous)
    links = [(i, j) for i, j, _ in alike(asking, threshold)] + same_words(asking, 0.8)
    kept, rejects, groups = group(rows, previous, asking, links)
    assert len(kept) + len(rejects) == len(rows)
    assert {r.reason for r in rejects} <= {"bridges_splits"}
    return kept, {r.question: groups.key[asking.of(r)] for r in kept}


def test_what_the_user_says_in_all_turns_is_the_question() -> None:
    chat = Row((*pair("Hi!", "Hello", system="S").messages, *pair("Bye", "Goodbye").messages))
    assert asked(chat) == "hi bye"
    assert asked(Row(text="Some Text.")) == "some text"


def test_alike_and_reordered_questions_and_given_groups_share_a_group() -> None:
    rows = [
        row("How do I reset my password?"),
        row("How do I reset my passwords?"),
        row("what is new in version two of the library"),
        row("of the library what is new in version two"),
        row("Is it raining?", group="weather"),
        row("Where is the sun?", group="weather"),
        row("Something else entirely"),
    ]
    _, group_of = names(rows, {})
    assert len(set(group_of.values())) == 4
    keys = list(group_of.values())
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[4] == keys[5]


def test_the_name_of_a_group_depends_on_neither_order_nor_answers() -> None:
    rows = [row("How do I reset my password?"), row("How do I reset my passwords?"), row("Other")]
    again = [row(r.question, "changed") for r in reversed(rows)]
    assert names(rows, {})[1] == names(again, {})[1]


def test_a_new_row_that_would_join_two_old_splits_is_rejected() -> None:
    left, right = row("how do i reset my old password"), row("how do i reset my own password today")
    bridge = row("how do i reset my own password")
    previous = {"train": [left], "valid": [], "test": [right]}
    kept, group_of = names([left, bridge, right], previous, threshold=0.6)
    assert kept == [left, right]
    assert len(set(group_of.values())) == 2


def test_new_rows_join_old_groups_through_each_other() -> None:
    old = row("how do i reset my old password")
    first, second = row("how do i reset my new old password"), row("how do i reset my new old password now")
    rows = [old, first, second]
    asking = questions(rows, {"test": [old]})
    links = [(i, j) for i, j, _ in alike(asking, 0.7)]
    assert (0, 2) not in links
    _, _, groups = group(rows, {"test": [old]}, asking, links)
    assert set(groups.split.values()) == {"test"}
    assert len(set(groups.key.values())) == 1


def test_the_later_of_two_near_duplicates_with_the_same_answer_goes() -> None:
    question = "how do i change the colour of the button on the start page of the app"
    rows = [row(question, "Like so.", 1), row(question + "s", "like so", 2), row(question + "z", "Otherwise.", 3)]
    asking = questions(rows, {})
    kept, rejects = drop_near(rows, asking, alike(asking, 0.7), 0.9)
    assert [r.meta.line for r in kept] == [1, 3]
    assert rejects[0].reason == "near_duplicate"
    assert rejects[0].detail.startswith("the answer of f:1")
    assert drop_near(rows, asking, alike(asking, 0.7), 1.0) == (rows, [])


def test_a_frame_that_nearly_all_questions_share_is_left_out_of_the_comparison() -> None:
    words = [f"{chr(97 + i // 26) * 4} {chr(97 + i % 26) * 5}" for i in range(60)]
    asking = questions([row(f"{LONG}: {word}. One word only, in English.") for word in words], {})
    assert asking.texts == words
    assert asking.frame == f"{LONG.lower()} ... one word only in english"
    few = questions([row(f"{LONG}: {word}") for word in words[:20]], {})
    assert few.frame == ""
    mixed = questions([row(f"{LONG}: {w}") for w in words] + [row(f"bare {w}") for w in words], {})
    assert mixed.frame == ""
