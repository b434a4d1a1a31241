"""prepare: raw rows to a set with train, valid and test, and the data receipt: rows in = kept + rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact
from tunesmith.core.jsonl import dump, write_jsonl
from tunesmith.prepare.amount import answer_tokens
from tunesmith.prepare.arrange import arrange, earlier
from tunesmith.prepare.clean import check, drop_duplicates, kind, read, with_system
from tunesmith.prepare.config import PrepareConfig as PrepareConfig
from tunesmith.prepare.measure import Instruments, measure
from tunesmith.prepare.quality import audit, leave_out
from tunesmith.prepare.report import notes, page
from tunesmith.prepare.sets import counted, name_of, seal_set, settings
from tunesmith.prepare.sets import receipt as receipt
from tunesmith.prepare.split import SPLITS
from tunesmith.text.batch import decide_batch
from tunesmith.text.residue import Unwrapped, unwrap


def run(
    config: PrepareConfig,
    raw: Sequence[Artifact],
    out: Path,
    previous: Artifact | None = None,
    system: str = "",
    instruments: Instruments | None = None,
) -> Artifact:
    """Write `out`/<id> with the three splits, rejects, findings, receipt.json and report.md; same input, same id.

    Questions of the `previous` set stay in its splits. `system` goes before conversations that have no system message.
    `instruments`: what the rows are measured with beside themselves, for the report.
    Raises DataError when rows of several kinds are mixed or none is left.
    """
    tools = instruments or Instruments()
    rows, rejects = read(raw)
    rows_in = len(rows) + len(rejects)
    bare = unwrap(rows) if config.unwrap == "auto" else Unwrapped(rows, 0, ())
    rows, wrong = check(with_system(bare.rows, system))
    rows, twice = drop_duplicates(rows)
    wanted = partial(leave_out, names=config.reject) if config.reject else None
    made = arrange(config, rows, earlier(config, previous), wanted)
    rejects += [*wrong, *twice, *made.rejects]
    assert rows_in == len(made.rows) + len(rejects), "a row was lost or counted twice"
    counts = counted(len(made.rows), Counter(reject.reason for reject in rejects))
    with ThreadPoolExecutor(1) as beside:  # numpy, which does most of the counting, lets go of Python's lock
        counting = beside.submit(made.counts, config)
        tokens = answer_tokens(tools.tokenizer, made.rows) if tools.tokenizer else None
        training = len(made.splits["train"]), tools.batch_size or decide_batch(len(made.splits["train"]))
        found = audit(made.corpus(config), bare.rows, *training, config.benchmarks, tokens)
    more = measure(config, made.rows, tools)
    found = replace(found, findings=[*found.findings, *more.findings])
    facts = {
        **counts,
        "unwrapped": bare.count,
        "duplicates": len(twice),
        **counting.result(),
        **found.facts(),
        **more.facts,
        "kind": kind(made.rows[0]),
        "batch_size": training[1],
    }
    lines = {f"{side}.jsonl": [dump(row.to_json()) + "\n" for row in made.splits[side]] for side in SPLITS}
    lines["rejects.jsonl"] = [dump(reject.to_json()) + "\n" for reject in rejects]
    told = notes(made.splits, bare, made.asking, facts)

    def fill(work: Path, facts: dict[str, Any]) -> None:
        for name, some in lines.items():
            (work / name).write_text("".join(some), encoding="utf-8", newline="\n")
        write_jsonl(work / "findings.jsonl", found.records())
        (work / "report.md").write_text(page(facts, found, rejects), encoding="utf-8", newline="\n")

    name = name_of(config, facts, map(str.encode, chain(*lines.values())))
    return seal_set(out / name, {**facts, "notes": told}, settings(config, raw), fill)
