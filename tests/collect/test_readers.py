import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.collect.readers import read
from tunesmith.collect.record import Record
from tunesmith.collect.sniff import sniff
from tunesmith.collect.unpack import memory
from tunesmith.core.errors import DataError
from tunesmith.core.records import Reject


def items(text: str) -> list[Record | Reject]:
    return list(read(sniff(memory(text.encode(), "f"))))


def seen(text: str) -> list[tuple[int, object]]:
    """(line, value) of a record, (line, reason) of a reject."""
    return [(i.line, i.value if isinstance(i, Record) else i.reason) for i in items(text)]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n\n{"a": 2}',
        '[{"a": 1},\n\n{"a": 2}]',
        '[\n{"a":\n1},{"a": 2}\n]',
        '{\n"a": 1}\n{"a": 2\n}',
        '{"version": "1", "data":\n[{"a": 1},\n{"a": 2}], "end": 0}',
        '{"x": {"a": 1}, "y":\n\n{"a": 2}}',
        "a,b\n1,2\n",
    ],
)
def test_each_shape_of_file_gives_its_rows_with_the_lines_they_start_on(text: str) -> None:
    found = seen(text)
    lines = text.split("\n")
    for line, value in found:
        assert isinstance(value, dict)
        assert str(value["a"]) in "\n".join(lines[line - 1 : line + 1])
    if text[0] != "a":
        assert [value for _, value in found] == [{"a": 1}, {"a": 2}]


def test_lines_are_true() -> None:
    assert seen('[\n  {"a": 1},\n  {\n    "a": 2\n  }\n]') == [(2, {"a": 1}), (3, {"a": 2})]
    assert seen('\n\n{"a": 1}\n\n{"a": 2}') == [(3, {"a": 1}), (5, {"a": 2})]
    assert seen('\nq,a\n"two\nlines",x\n\nlast,y') == [(3, {"q": "two\nlines", "a": "x"}), (6, {"q": "last", "a": "y"})]


def test_a_line_cut_in_the_middle_is_a_reject_with_line_and_column() -> None:
    cut = items('{"a": 1}\n{"a": "tw\n{"a": 3}\n')
    assert [item.line for item in cut] == [1, 2, 3]
    assert isinstance(cut[1], Reject)
    assert cut[1].reason == "malformed"
    assert cut[1].detail.startswith("f:2:7: ")
    assert cut[1].raw == '{"a": "tw'


def test_an_array_cut_in_the_middle_keeps_its_whole_elements() -> None:
    assert seen('[{"a": 1},\n{"a": 2},\n{"a": "thr') == [(1, {"a": 1}), (2, {"a": 2}), (3, "malformed")]
    assert seen('{"data": [{"a": 1},\n{"a": ') == [(1, {"a": 1}), (2, "malformed")]


def test_after_a_damaged_element_reading_goes_on_where_the_next_one_starts() -> None:
    text = '[\n  {"a": 1},\n  {"a": oops},\n  {"a": 3}\n]'
    assert seen(text) == [(2, {"a": 1}), (3, "malformed"), (4, {"a": 3})]


def test_damage_without_a_sign_of_the_next_row_stops_with_its_place() -> None:
    with pytest.raises(DataError, match="f:1:17: damaged JSON"):
        seen('[{"a": 1},{"a": oops},{"a": 3}]')


def test_what_is_no_object_is_a_reject() -> None:
    assert seen('["a", {"a": 1}, 3]') == [(1, "not_an_object"), (1, {"a": 1}), (1, "not_an_object")]
    assert seen('{"a": 1}\n[1]\n{"a": 2}')[1] == (2, "not_an_object")


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_one_object_that_is_a_row_is_not_taken_for_a_list_of_rows(key: str) -> None:
    row = {key: [{"role": "user", "content": "x"}]}
    assert seen(json.dumps(row)) == [(1, row)]
    assert seen(json.dumps(row, indent=1)) == [(1, row)]


def test_numbers_too_long_and_nesting_too_deep_are_rejects() -> None:
    text = '{"a": 1}\n{"a": ' + "9" * 5000 + '}\n{"a": 2}\n{"a": ' + "[" * 100_000 + "\n" + '{"a": 3}'
    assert [value for _, value in seen(text)] == [{"a": 1}, "malformed", {"a": 2}, "malformed", {"a": 3}]


def test_a_long_field_is_no_error() -> None:
    assert len(dict(seen("q,a\nx," + "y" * 200_000))[2]["a"]) == 200_000  # type: ignore[index]


def test_records_of_another_width_are_rejects() -> None:
    text = "q,a\n1,2\n1,2,3\n1\n5,6,,\n7,8\n9,10\n11,12\n"
    kept = [(2, {"q": "1", "a": "2"}), (3, "column_count"), (4, "column_count"), (5, {"q": "5", "a": "6"})]
    assert seen(text)[:4] == kept


def test_a_quote_that_is_never_closed_costs_its_own_row_only() -> None:
    text = "q,a\n" + '1,"x, y"\n' * 10 + '3,"four\n' + '1,"x, y"\n' * 10
    assert [line for line, _ in seen(text)] == list(range(2, 23))
    assert [line for line, value in seen(text) if value == "malformed"] == [12]


def test_where_quotes_do_not_quote_they_are_text() -> None:
    found = seen('q\ta\n"So," he said\t1\n5" wide\t2')
    assert found == [(2, {"q": '"So," he said', "a": "1"}), (3, {"q": '5" wide', "a": "2"})]


@pytest.mark.parametrize("text", ["question,answer\n", "question,answer", "question;answer\n\n\n"])
def test_a_table_with_a_header_only_says_so(text: str) -> None:
    with pytest.raises(DataError, match="a header and no rows"):
        items(text)


def test_two_columns_of_one_name_are_asked_about() -> None:
    with pytest.raises(DataError, match="f:1: two columns are called 'q'"):
        items("q,q\n1,2")


values = st.dictionaries(
    st.sampled_from(["question", "answer", "é", "x y"]),
    st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.none(), st.lists(st.integers())),
    min_size=1,
)


@given(st.lists(values, min_size=2, max_size=6), st.sampled_from([None, 1, 4]), st.booleans())
def test_json_in_every_layout_gives_the_same_rows(rows: list[dict[str, object]], indent: int | None, raw: bool) -> None:
    one = [json.dumps(row, ensure_ascii=raw) for row in rows]
    layouts = ["\n".join(one), json.dumps(rows, indent=indent), json.dumps({"data": rows}, indent=indent)]
    layouts.append("\n".join(json.dumps(row, indent=indent) for row in rows))
    for text in layouts:
        assert [value for _, value in seen(text)] == rows


@given(st.lists(st.fixed_dictionaries({"a": st.text('ab"\n{}[],é')}), min_size=1, max_size=5), st.data())
def test_a_cut_array_loses_at_most_its_last_row(rows: list[dict[str, str]], data: st.DataObject) -> None:
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    cut = text[: data.draw(st.integers(2, len(text) - 2))]
    found = seen(cut)
    whole = [value for _, value in found if isinstance(value, dict)]
    assert whole == rows[: len(whole)]
    assert len(found) - len(whole) <= 1
