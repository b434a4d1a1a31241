"""prepare: raw rows to a set with train, valid and test, and the data receipt: rows in = kept + rejected."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import dump, read_rows, write_json, write_jsonl, write_rows
from tunesmith.core.records import Reject, Row
from tunesmith.core.runlog import say
from tunesmith.prepare.clean import check, drop_duplicates, kind, read, with_system
from tunesmith.prepare.groups import alike, drop_near, group, questions, same_words
from tunesmith.prepare.report import Finding, find, notes, page
from tunesmith.prepare.residue import Unwrapped, unwrap
from tunesmith.prepare.split import LEAK, SPLITS, Splits, leaked, random_split, split

VERSION = 1  # of what the same rows become; part of a set's name
RECEIPT = ("set_id", "path", "rows_in", "kept", "rejected", "unwrapped", "duplicates", "near_duplicates", "leaked")
SPLITTING = ("seed", "valid_fraction", "test_fraction", "leak_threshold")  # a new value of these asks for a new split


class PrepareConfig(Config):
    """How rows become a set."""

    valid_fraction: float = Field(default=0.1, ge=0, lt=1)
    """share of the groups that training is steered by"""
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    """share of the groups that are only measured on"""
    near_duplicate_threshold: float = Field(default=0.9, gt=0, le=1)
    """of two rows with the same answer and questions this alike (Jaccard of 4-grams) one is dropped"""
    leak_threshold: float = Field(default=0.7, gt=0, le=1)
    """questions this alike (Jaccard of 4-grams) stay in one split"""
    unwrap: Literal["auto", "never"] = "auto"
    """auto takes off prompt templates that are baked into at least 95 % of a file's rows; never leaves them"""
    seed: int = 0
    """salt of the split: another number, another split"""


def run(
    config: PrepareConfig, raw: Sequence[Artifact], out: Path, previous: Artifact | None = None, system: str = ""
) -> Artifact:
    """Write `out`/<id> with the three splits, rejects.jsonl, receipt.json and report.md; the same input, the same id.

    Questions of the `previous` set stay in its splits. `system` goes before conversations that have no system message.
    Raises DataError when rows of several kinds are mixed or none is left.
    """
    if config.valid_fraction + config.test_fraction >= 1:
        raise UsageError("valid_fraction + test_fraction must be below 1: the rest is trained on")
    rows, rejects = read(raw)
    rows_in = len(rows) + len(rejects)
    bare = unwrap(rows) if config.unwrap == "auto" else Unwrapped(rows, 0, ())
    rows, wrong = check(with_system(bare.rows, system))
    rows, twice = drop_duplicates(rows)
    before = _before(config, previous)
    asking = questions(rows, before)
    near = alike(asking, min(config.leak_threshold, config.near_duplicate_threshold))
    rows, nearly = drop_near(rows, asking, near, config.near_duplicate_threshold)
    links = [(i, j) for i, j, score in near if score >= config.leak_threshold]
    links += same_words(asking, max(LEAK, config.leak_threshold))
    rows, bridging, groups = group(rows, before, asking, links)
    rejects += [*wrong, *twice, *nearly, *bridging]
    assert rows_in == len(rows) + len(rejects), "a row was lost or counted twice"
    if not rows:
        raise DataError("no row is left", expected=f"rejected: {dict(Counter(r.reason for r in rejects))}")
    shares = {"valid": config.valid_fraction, "test": config.test_fraction}
    splits = split(rows, asking, groups, shares, config.seed)
    findings = find(rows)
    sizes = {side: len(splits[side]) for side in SPLITS}
    facts = {
        "rows_in": rows_in,
        "kept": len(rows),
        "rejected": dict(Counter(reject.reason for reject in rejects)),
        "unwrapped": bare.count,
        "duplicates": len(twice),
        "near_duplicates": len(nearly),
        "leaked": leaked(splits, asking),
        "leaked_random_split": leaked(random_split(rows, sizes, config.seed), asking),
        **sizes,
        "groups": len(set(groups.key.values())),
        **{name: finding.count for name, finding in findings.items()},
        "kind": kind(rows[0]),
    }
    told = notes(splits, bare, asking, facts)
    return _write(config, out, splits, rejects, facts, findings.values(), told)


def receipt(artifact: Artifact) -> dict[str, Any]:
    """What `prepare --json` prints."""
    facts = artifact.facts | {"path": str(artifact.path)}
    return {key: facts[key] for key in (*RECEIPT, *SPLITS)}


def _before(config: PrepareConfig, previous: Artifact | None) -> Mapping[str, Sequence[Row]]:
    """The rows of the previous set by split; none when the split was asked for in another way."""
    if previous is None:
        return {}
    old, new = previous.facts["config"], config.model_dump(mode="json")
    if changed := [key for key in SPLITTING if old.get(key) != new[key]]:
        say(f"{', '.join(changed)} changed since set {previous.name}: rows are split anew")
        return {}
    return {side: list(read_rows(previous.path / f"{side}.jsonl")) for side in SPLITS}


def _write(
    config: PrepareConfig,
    out: Path,
    splits: Splits,
    rejects: Sequence[Reject],
    facts: dict[str, Any],
    findings: Iterable[Finding],
    told: Sequence[str],
) -> Artifact:
    settings = config.model_dump(mode="json")
    rows = [dump(row.to_json()) for side in SPLITS for row in splits[side]]
    rows += [dump(reject.to_json()) for reject in rejects]
    contents = [dump([VERSION, settings, facts]), *rows]
    final = out / hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]
    if final.exists():
        return open_artifact(final, "set")
    facts = {"set_id": final.name, "path": str(final), **facts, "notes": list(told)}
    with writing(final) as work:
        for side in SPLITS:
            write_rows(work / f"{side}.jsonl", splits[side])
        write_jsonl(work / "rejects.jsonl", (reject.to_json() for reject in rejects))
        write_json(work / "receipt.json", facts)
        (work / "report.md").write_text(page(facts, findings, told), encoding="utf-8", newline="\n")
        return seal(work, final, "set", facts | {"config": settings})
