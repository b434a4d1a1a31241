import pytest

from tunesmith.core.records import pair
from tunesmith.diagnose.cases import Case
from tunesmith.diagnose.categories import Known
from tunesmith.diagnose.figures import categories, diagnosed, not_run, percent, table

GOOD, LOOP = "Press the key once.", "go on go on go on"


def case(number: int, before: str, after: str, reference: str = "") -> Case:
    said = {"base": (before, "stop"), "tuned": (after, "stop")}
    return Case(str(number), "How?", reference, "", f"f:{number}", said)


CASES = [*(case(n, LOOP, GOOD) for n in range(6)), case(6, GOOD, LOOP), case(7, LOOP, LOOP), case(8, GOOD, GOOD)]


def test_what_was_fixed_introduced_and_persists_is_counted_and_paired() -> None:
    cell = categories(diagnosed(CASES, Known.of([])), "tuned", "base")["repetitive"]
    assert (cell["n"], cell["count"], cell["rate"]) == (9, 2, 2 / 9)
    assert (cell["before"], cell["fixed"], cell["introduced"], cell["persisting"]) == (7 / 9, 6, 1, 1)
    assert cell["low"] <= cell["rate"] <= cell["high"]
    assert cell["difference"] == (2 - 7) / 9
    assert cell["difference_low"] <= cell["difference"] <= cell["difference_high"]
    assert cell["verdict"] == "cannot tell"  # 6 against 1: p is 0.125


def test_enough_rows_give_a_verdict() -> None:
    many = [case(n, LOOP, GOOD) for n in range(12)] + [case(n, GOOD, GOOD) for n in range(12, 20)]
    cell = categories(diagnosed(many, Known.of([])), "tuned", "base")["repetitive"]
    assert cell["verdict"] == "better"
    assert cell["difference_high"] < 0


def test_p_is_adjusted_among_what_was_mended_and_among_the_others() -> None:
    many = [case(n, f"{LOOP} and on", "", "A b.") for n in range(8)]  # too long, too
    found = diagnosed(many, Known.of([]))
    alone = categories(found, "tuned", "base", {"repetitive"})
    assert alone["repetitive"]["p_holm"] == alone["repetitive"]["p"] == pytest.approx(2 / 2**8)
    assert alone["empty"]["p_holm"] > alone["empty"]["p"]
    together = categories(found, "tuned", "base")
    assert together["repetitive"]["p_holm"] > together["repetitive"]["p"]
    assert alone["refusal"]["verdict"] == "cannot tell"


def test_one_arm_has_rates_alone() -> None:
    alone = [Case("1", "How?", "", "", "f:1", {"tuned": (LOOP, "")})]
    cell = categories(diagnosed(alone, Known.of([])), "tuned")["repetitive"]
    assert cell.keys() == {"n", "count", "rate", "low", "high"}


def test_a_category_that_no_row_can_tell_is_not_run_and_says_why() -> None:
    found = diagnosed(CASES, Known.of([]))
    assert "too_long" not in categories(found, "tuned")
    assert not_run(found)["too_long"] == "no row has a reference"
    assert "no training rows are known" in not_run(found)["copied"]
    german = diagnosed(CASES, Known.of([pair("a", "der schnelle braune fuchs springt hoch und weit")]))
    assert not_run(german)["misspelling"] == "most words are not in the English dictionary"


def test_rows_without_a_reference_are_not_counted_where_one_is_needed() -> None:
    found = diagnosed([case(0, GOOD, GOOD, GOOD), case(1, GOOD, GOOD)], Known.of([]))
    figures = categories(found, "tuned")
    assert (figures["too_long"]["n"], figures["repetitive"]["n"]) == (1, 2)


def test_the_table_has_a_line_a_category_the_most_frequent_first() -> None:
    found = diagnosed(CASES, Known.of([]))
    lines = table(categories(found, "tuned", "base"), not_run(found), ("base", "tuned")).splitlines()
    assert lines[0].split()[:3] == ["category", "base", "tuned"]
    assert lines[1].startswith("repetitive")
    assert "copied: NOT RUN, " in lines[-1]
    assert percent(None) == "-"
    assert percent(0.5, sign=True) == "+50.0 %"
