from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from tunesmith.core.config import Config, make, read_toml, to_toml, toml_value
from tunesmith.core.errors import UsageError


class Sample(Config):
    """A config with a field of every kind."""

    name: str
    """what it is called,
    over two lines"""
    max_steps: int | None = Field(default=None, ge=1)
    """optimizer steps; None: as many as the epochs need"""
    learning_rate: float = 1e-4
    """the peak"""
    method: Literal["full", "lora"] = "full"
    """which weights are trained"""
    keys: tuple[str, ...] = ()
    """columns to read"""
    limits: dict[str, float | None] = Field(default={})
    """the most of each"""


def message(**values: Any) -> str:
    with pytest.raises(UsageError) as error:
        make(Sample, values, where="tunesmith.toml [sample]")
    assert error.value.exit_code == 2
    return str(error.value)


def test_an_unknown_key_is_an_error_with_the_nearest_known_one() -> None:
    assert message(name="a", max_step=3) == (
        "tunesmith.toml [sample]: unknown key 'max_step'\n  next: did you mean 'max_steps'?"
    )


def test_an_unknown_key_like_no_other_lists_what_there_is() -> None:
    assert message(name="a", zzz=3).endswith("next: known: keys, learning_rate, limits, max_steps, method, name")


def test_a_misspelt_key_is_named_before_the_missing_one_that_it_was_meant_to_be() -> None:
    assert "unknown key 'nmae'\n  next: did you mean 'name'?" in message(nmae="a")


def test_a_missing_key_is_named_with_what_it_takes() -> None:
    assert message() == "tunesmith.toml [sample]: 'name' is missing\n  expected: what it is called, over two lines"


@pytest.mark.parametrize(
    ("values", "what", "takes"),
    [
        (
            {"learning_rate": "fast"},
            'learning_rate = "fast": input should be a valid number, unable to parse string as a number',
            "the peak",
        ),
        ({"method": "lor"}, "method = \"lor\": input should be 'full' or 'lora'", "which weights are trained"),
        (
            {"max_steps": 0},
            "max_steps = 0: input should be greater than or equal to 1",
            "optimizer steps; None: as many as the epochs need",
        ),
        ({"keys": ["a", 3]}, "keys.1 = 3: input should be a valid string", "columns to read"),
    ],
)
def test_a_wrong_value_is_shown_with_what_its_field_takes(values: dict[str, Any], what: str, takes: str) -> None:
    assert message(name="a", **values) == f"tunesmith.toml [sample]: {what}\n  expected: {takes}"


def test_a_config_cannot_be_changed() -> None:
    config = make(Sample, {"name": "a"})
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "b"


def test_a_section_has_every_key_with_its_comment_and_none_commented_out() -> None:
    assert to_toml("sample", Sample(name="a", keys=("x", "y"), limits={"b": 0.5, "c": None})) == (
        "[sample]\n"
        'name = "a"  # what it is called, over two lines\n'
        "# max_steps =  # optimizer steps; None: as many as the epochs need\n"
        "learning_rate = 0.0001  # the peak\n"
        'method = "full"  # which weights are trained\n'
        'keys = ["x", "y"]  # columns to read\n'
        'limits = { "b" = 0.5 }  # the most of each\n'
    )


NUMBERS = st.floats(allow_nan=False)
SAMPLES = st.builds(
    Sample,
    name=st.text(),
    max_steps=st.none() | st.integers(1, 2**62),
    learning_rate=NUMBERS,
    keys=st.lists(st.text(), max_size=3).map(tuple),
    limits=st.dictionaries(st.text(), NUMBERS, max_size=3),
)


@given(SAMPLES)
def test_a_config_comes_back_from_toml_as_it_went(config: Sample) -> None:
    assert make(Sample, tomllib.loads(to_toml("sample", config))["sample"]) == config


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_every_value_is_a_toml_literal(value: Any) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


def test_nan_is_a_toml_literal() -> None:
    assert math.isnan(tomllib.loads(f"x = {toml_value(math.nan)}")["x"])


def test_toml_is_read_with_a_bom_and_with_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'\xef\xbb\xbf[task]\r\nname = "\xc3\xa4"\r\n')
    assert read_toml(tmp_path / "a.toml") == {"task": {"name": "ä"}}


@pytest.mark.parametrize("text", [b"[task\nname = 1", b"name = ", b'name = "\xff"', "name = 'a'".encode("utf-16")])
def test_what_is_not_toml_is_an_error_with_the_file(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}: not valid TOML: ")
