"""A function of the user's own file, named as FILE.py:FUNCTION in tunesmith.toml or in a suite of tests."""

from __future__ import annotations

import importlib.util
import inspect
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tunesmith.core.errors import UsageError, did_you_mean
from tunesmith.core.records import Row
from tunesmith.evaluate.catalogue import OWN

Own = Callable[[str, str, Row], float | None]
MORE = ("prompt", "row")  # what a function may ask for besides, by name
SIGNATURE = "def politeness(prediction, reference): ... gives 0..1, or None; it may also ask for prompt or row by name"


def load(name: str, folder: Path, where: str = "") -> Own:
    """The function of `folder`/FILE.py, which is run. Raises UsageError with file:line on whatever is wrong with it.

    It is called with the answer and the reference, and by name with `prompt` (the last question) and `row` (a dict
    as in the set's files), where it has a parameter of that name. True and False count as 1 and 0.
    """
    found = OWN.fullmatch(name)
    if found is None:
        raise UsageError(f"'{name}' names no function", where=where, expected="FILE.py:FUNCTION")
    path = folder / found["file"]
    module = _run(path, where)
    function = getattr(module, found["function"], None)
    if not inspect.isfunction(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        fix = did_you_mean(found["function"], known) or f"write one: {SIGNATURE}"
        raise UsageError(f"{path} has no function {found['function']}", where=where, fix=fix)
    return _checked(function, f"{path}:{function.__code__.co_firstlineno}")


def _run(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", where=where, expected="a path from the project's folder")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not Python", where=where, expected="FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's file may raise anything: told with its line
        raise _failed(error, path, "while it was loaded") from error
    return module


def _checked(function: Callable[..., Any], place: str) -> Own:
    parameters = inspect.signature(function).parameters
    wanted = [name for name in MORE if name in parameters]
    path = Path(function.__code__.co_filename)
    try:
        inspect.signature(function).bind("", "", **dict.fromkeys(wanted))
    except TypeError as error:
        raise UsageError(f"{function.__name__} cannot be called: {error}", where=place, expected=SIGNATURE) from error

    def scored(prediction: str, reference: str, row: Row) -> float | None:
        more = {"prompt": row.question, "row": row.to_json()}
        try:
            value = function(prediction, reference, **{name: more[name] for name in wanted})
        except Exception as error:  # as above
            raise _failed(error, path, f"on row {row.id}") from error
        return _in_range(value, function.__name__, place)

    return scored


def _in_range(value: Any, name: str, place: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise UsageError(f"{name} gave {value!r:.60}", where=place, expected="a number from 0 to 1, or None")
    return float(value)


def _failed(error: Exception, path: Path, when: str) -> UsageError:
    """The last line of the user's own file that the error went through; of a syntax error, its line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = f"{path}:{line}" if line else str(path)
    return UsageError(f"{type(error).__name__} {when}: {error}", where=where, fix="mend the function and run again")
