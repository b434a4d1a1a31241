"""Acceptance: every file of ../shared/data imports without a flag, or stops with a question that says what to type."""

import runpy
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = CHECKOUT / "../shared/data"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_every_real_file_is_imported_or_asked_about_and_no_row_is_lost() -> None:
    lines = runpy.run_path(str(CHECKOUT / "bench" / "import_table.py"))["table"](DATA)
    assert len(lines) > 100
    assert [line for line in lines if not line["ok"]] == []
