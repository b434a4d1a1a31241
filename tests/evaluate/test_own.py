from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import UsageError
from tunesmith.core.records import Meta, pair
from tunesmith.evaluate.own import load

ROW = pair("How?", "So.", system="Be brief", meta=Meta("faq.csv", 7))
CODE = """\
import math

def polite(prediction, reference):
    return float("please" in prediction)

def longer(prediction, reference, *, prompt, row, weight=1.0):
    return weight * (prompt == "How?" and row["meta"]["line"] == 7)

def silent(prediction, reference):
    return None

def breaks(prediction, reference):
    text = prediction
    return len(text) / len(reference[5:])

def wide(prediction, reference):
    return 100 if prediction else math.nan

def text(prediction, reference):
    return "good"

def lonely(prediction):
    return 1.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_metrics.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n", encoding="utf-8")
    (tmp_path / "fails.py").write_text("x = 1\n\nimport no_such_module_here\n", encoding="utf-8")
    return tmp_path


def test_a_function_is_called_with_the_answer_and_the_reference(folder: Path) -> None:
    polite = load("my_metrics.py:polite", folder)
    assert polite("yes, please", "", ROW) == 1.0
    assert polite("yes", "", ROW) == 0.0
    assert load("my_metrics.py:silent", folder)("", "", ROW) is None


def test_it_gets_the_prompt_and_the_row_where_it_asks_for_them_by_name(folder: Path) -> None:
    assert load("my_metrics.py:longer", folder)("a", "b", ROW) == 1.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_metrics.py:polit", r"my_metrics\.py has no function polit\n  next: did you mean 'polite'"),
        ("my_metrics.py:math", r"my_metrics\.py has no function math"),
        ("gone.py:polite", r"\[evaluate\] metrics: there is no file .*gone\.py"),
        ("broken.py:f", r"broken\.py:2: SyntaxError while it was loaded"),
        ("fails.py:f", r"fails\.py:3: ModuleNotFoundError while it was loaded: No module named 'no_such_module_here'"),
        ("my_metrics.py:lonely", r"my_metrics\.py:22: lonely cannot be called: too many positional arguments"),
        ("polite", "'polite' names no function"),
    ],
)
def test_what_cannot_be_loaded_is_told_with_its_line(folder: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(name, folder, "[evaluate] metrics")


@pytest.mark.parametrize(
    ("name", "prediction", "said"),
    [
        ("breaks", "a", rf"my_metrics\.py:14: ZeroDivisionError on row {ROW.id}: division by zero"),
        ("wide", "a", r"my_metrics\.py:16: wide gave 100\n  expected: a number from 0 to 1, or None"),
        ("wide", "", r"my_metrics\.py:16: wide gave nan"),
        ("text", "a", r"my_metrics\.py:19: text gave 'good'"),
    ],
)
def test_what_goes_wrong_in_it_is_told_with_its_line(folder: Path, name: str, prediction: str, said: str) -> None:
    function: Any = load(f"my_metrics.py:{name}", folder)
    with pytest.raises(UsageError, match=said):
        function(prediction, "ref", ROW)
