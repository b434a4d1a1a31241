import pytest

from tunesmith.collect.sniff import sniff
from tunesmith.collect.source import look
from tunesmith.collect.unpack import memory
from tunesmith.core.records import Reject, Row


def found(text: str) -> tuple[list[Row], list[tuple[int, str]]]:
    source = look(sniff(memory(text.encode(), "t")), {})
    items = list(source.items())
    return [i for i in items if isinstance(i, Row)], [(i.line, i.reason) for i in items if isinstance(i, Reject)]


def said(row: Row) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


HEAD = "ticket_id,created_at,sender,message\n"


def test_the_messages_of_a_ticket_become_one_conversation_by_time() -> None:
    rows, left = found(
        HEAD
        + "7,2024-01-01 12:00,agent,There.\n7,2024-01-01 10:00,customer,Where?\n8,2024-01-01 09:00,customer,Who?\n"
        + "7,2024-01-01 11:00,customer,Really.\n7,2024-01-01 13:00,customer,Thanks!\n8,2024-01-01 10:00,agent,They.\n"
    )
    assert said(rows[0]) == [("user", "Where?\n\nReally."), ("assistant", "There.")]
    assert said(rows[1]) == [("user", "Who?"), ("assistant", "They.")]
    assert [row.meta.group for row in rows] == ["t:7", "t:8"]
    assert left == [(6, "not_needed")]


def test_where_the_senders_are_names_the_first_one_asks() -> None:
    rows, _ = found("conversation_id,from,text\n1,ann@x.y,Where?\n1,bob@z,There.\n1,ann@x.y,When?\n1,cy@z,Now.\n")
    assert [role for role, _ in said(rows[0])] == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(("column", "value"), [("is_internal", "true"), ("public", "False"), ("private", "1")])
def test_a_note_between_colleagues_is_never_an_answer(column: str, value: str) -> None:
    other = "0" if value != "False" else "True"
    rows, left = found(
        f"ticket_id,role,message,{column}\n1,customer,Where?,{other}\n"
        f"1,agent,He again!,{value}\n1,agent,There.,{other}\n"
    )
    assert said(rows[0]) == [("user", "Where?"), ("assistant", "There.")]
    assert left == [(3, "internal")]


def test_every_row_that_is_part_of_no_ticket_is_rejected() -> None:
    bad = "2,customer,Hm?\n,agent,x\n3,agent,Hello.\n4,customer,\n"
    rows, left = found(f"ticket_id,sender,message\n1,customer,Where?\n1,agent,There.\n{bad}")
    assert len(rows) == 1
    assert sorted(left) == [(4, "no_reply"), (5, "null"), (6, "role_order"), (7, "null")]


@pytest.mark.parametrize(
    ("header", "row", "pair"),
    [
        ("Ticket ID,Ticket Subject,Ticket Description,Resolution", "1,Login,It fails.,Reset it.",
         ("Login\n\nIt fails.", "Reset it.")),
        ("id,subject,body,answer", "1,Login,It fails.,Reset it.", ("Login\n\nIt fails.", "Reset it.")),
        ("id,description,solution", "1,It fails.,Reset it.", ("It fails.", "Reset it.")),
        ("id,title,body,reply", "1,,It fails.,Reset it.", ("It fails.", "Reset it.")),
    ],
)  # fmt: skip
def test_a_ticket_a_row_is_its_subject_and_description_and_what_solved_it(
    header: str, row: str, pair: tuple[str, str]
) -> None:
    rows, _ = found(f"{header}\n{row}\n")
    assert (rows[0].question, rows[0].answer) == pair
