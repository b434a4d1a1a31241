"""prepare: raw rows to a set with train, valid and test, and the data receipt: rows in = kept + rejected."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import dump, write_json, write_jsonl
from tunesmith.core.records import Reject
from tunesmith.prepare.arrange import arrange, earlier
from tunesmith.prepare.clean import check, drop_duplicates, kind, read, with_system
from tunesmith.prepare.config import PrepareConfig as PrepareConfig
from tunesmith.prepare.quality import Audit, audit, leave_out
from tunesmith.prepare.report import notes, page
from tunesmith.prepare.split import SPLITS, Splits
from tunesmith.text.residue import Unwrapped, unwrap

VERSION = 1  # of what the same rows become; part of a set's name
RECEIPT = ("set_id", "path", "rows_in", "kept", "rejected", "unwrapped", "duplicates", "near_duplicates", "leaked")


def run(
    config: PrepareConfig,
    raw: Sequence[Artifact],
    out: Path,
    previous: Artifact | None = None,
    system: str = "",
    batch_size: int = 16,
) -> Artifact:
    """Write `out`/<id> with the three splits, rejects, findings, receipt.json and report.md; same input, same id.

    Questions of the `previous` set stay in its splits. `system` goes before conversations that have no system message.
    `batch_size` is training's, in rows: what the report counts steps by.
    Raises DataError when rows of several kinds are mixed or none is left.
    """
    if config.valid_fraction + config.test_fraction >= 1:
        raise UsageError("valid_fraction + test_fraction must be below 1: the rest is trained on")
    rows, rejects = read(raw)
    rows_in = len(rows) + len(rejects)
    bare = unwrap(rows) if config.unwrap == "auto" else Unwrapped(rows, 0, ())
    rows, wrong = check(with_system(bare.rows, system))
    rows, twice = drop_duplicates(rows)
    wanted = partial(leave_out, names=config.reject) if config.reject else None
    made = arrange(config, rows, earlier(config, previous), wanted)
    rejects += [*wrong, *twice, *made.rejects]
    assert rows_in == len(made.rows) + len(rejects), "a row was lost or counted twice"
    if not made.rows:
        raise DataError("no row is left", expected=f"rejected: {dict(Counter(r.reason for r in rejects))}")
    with ThreadPoolExecutor(1) as beside:  # numpy, which does most of the counting, lets go of Python's lock
        counting = beside.submit(made.counts, config)
        found = audit(made.corpus(config), bare.rows, len(made.splits["train"]), batch_size, config.benchmarks)
    facts = {
        "rows_in": rows_in,
        "kept": len(made.rows),
        "rejected": dict(Counter(reject.reason for reject in rejects)),
        "unwrapped": bare.count,
        "duplicates": len(twice),
        **counting.result(),
        **found.facts(),
        "kind": kind(made.rows[0]),
    }
    parents = {artifact.name: artifact.hash for artifact in raw}
    settings = {"config": config.model_dump(mode="json"), "parents": parents}
    told = notes(made.splits, bare, made.asking, facts)
    return _write(out, made.splits, rejects, facts, settings, found, told)


def receipt(artifact: Artifact) -> dict[str, Any]:
    """What `prepare --json` prints."""
    facts = artifact.facts | {"path": str(artifact.path)}
    return {key: facts[key] for key in (*RECEIPT, *SPLITS)}


def _write(
    out: Path,
    splits: Splits,
    rejects: Sequence[Reject],
    facts: dict[str, Any],
    settings: dict[str, Any],
    found: Audit,
    told: Sequence[str],
) -> Artifact:
    lines = {f"{side}.jsonl": [dump(row.to_json()) for row in splits[side]] for side in SPLITS}
    lines["rejects.jsonl"] = [dump(reject.to_json()) for reject in rejects]
    contents = [dump([VERSION, settings["config"], facts]), *chain(*lines.values())]
    final = out / hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]
    if final.exists():
        return open_artifact(final, "set")
    facts = {"set_id": final.name, "path": str(final), **facts, "notes": list(told)}
    with writing(final) as work:
        for name, some in lines.items():
            (work / name).write_text("".join(line + "\n" for line in some), encoding="utf-8", newline="\n")
        write_jsonl(work / "findings.jsonl", found.records())
        write_json(work / "receipt.json", facts)
        (work / "report.md").write_text(page(facts, found, rejects, told), encoding="utf-8", newline="\n")
        return seal(work, final, "set", facts | settings)
