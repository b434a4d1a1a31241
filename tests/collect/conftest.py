"""The misbehaving endpoint, as a fixture."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[1] / "endpoint.py"


@pytest.fixture(scope="session")
def serving() -> Callable[..., Any]:
    """`with serving(brain, script, seconds) as endpoint`: a real server on this machine."""
    spec = importlib.util.spec_from_file_location("tests_endpoint", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.serving
    return found
