"""`import tunesmith` is light, and what it promises is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tunesmith


@pytest.mark.parametrize("name", tunesmith.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(tunesmith, name) is not None


def test_the_names_are_the_real_ones() -> None:
    from tunesmith import api
    from tunesmith.core import errors, project

    assert (tunesmith.Model, tunesmith.finetune) == (api.Model, api.finetune)
    assert (tunesmith.Project, tunesmith.TunesmithError) == (project.Project, errors.TunesmithError)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'finetun'"):
        tunesmith.finetun  # noqa: B018


def test_the_import_loads_nothing_but_itself() -> None:
    code = "import sys, tunesmith; print([m for m in ('torch', 'numpy', 'pydantic', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_one_that_is_installed() -> None:
    from importlib.metadata import version

    assert tunesmith.__version__ == version("tunesmith")
