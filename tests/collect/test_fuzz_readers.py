"""A few thousand inputs of the fuzzer; bench and CI run more of them: `python tests/collect/fuzz_readers.py`."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", [101, 102])
def test_no_input_does_anything_but_give_rows_or_an_error_with_words(seed: int) -> None:
    seen = runpy.run_path(str(Path(__file__).parent / "fuzz_readers.py"))["fuzz"](1500, seed)
    assert seen.total() == 1500
    assert len(seen) > 5
