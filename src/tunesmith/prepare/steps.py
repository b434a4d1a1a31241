"""prepare's row-wise steps over shards of JSONL. Each is a pure (settings, shard_in, shard_out, rank, world)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.jsonl import dump, read_jsonl, read_rows, write_json, write_jsonl, write_rows
from tunesmith.core.records import Row
from tunesmith.prepare.clean import answer_key, check, kind, place, reject, same_key, same_kind, with_system
from tunesmith.prepare.groups import said
from tunesmith.prepare.parents import Kinship
from tunesmith.text.residue import takings

Settings = dict[str, Any]
Accepted = dict[str, list[str]]  # file -> the templates taken off its rows, in order
REWRITTEN, WRONG = "rewritten.jsonl", "wrong.jsonl"
DECIDED = ("duplicate", "near_duplicate", "bridges_splits")  # reasons, in the order of rejects.jsonl


def adopt(settings: Settings, source: Path, target: Path, rank: int, world: int) -> None:
    """Rows as heads of their families, and among the rejects those that were rewritten or dropped."""
    kin = Kinship(frozenset(settings["parents"]), settings["gone"])
    rows = list(read_rows(source / "rows.jsonl"))
    write_rows(target / "rows.jsonl", (kin.adopt(row) for row in rows if row.id not in kin.gone))
    gone = (reject(row, *kin.gone[row.id]) for row in rows if row.id in kin.gone)
    write_jsonl(target / REWRITTEN, (found.to_json() for found in gone))


def count_templates(settings: Settings, source: Path, target: Path, rank: int, world: int) -> None:
    """How many rows of each file wear each template that has not been decided on, the accepted ones taken off."""
    names = [name for name, _ in takings()]
    counts: dict[str, dict[str, int]] = {}
    first = None
    for row in read_rows(source / "rows.jsonl"):
        first = first or [kind(row), place(row)]
        same_kind([kind(row), place(row)], first)
        accepted = settings["accepted"].get(row.meta.source, [])
        row, _ = bare(row, accepted)
        counted = counts.setdefault(row.meta.source, dict.fromkeys(["filled", *names], 0))
        if row.question.strip():
            counted["filled"] += 1
            last = names.index(accepted[-1]) if accepted else -1
            for name, take in takings()[last + 1 :]:
                counted[name] += take(row) is not None
    write_json(target / "counts.json", {"first": first, "counts": counts})


def bare(row: Row, accepted: Sequence[str]) -> tuple[Row, bool]:
    """A row without the accepted templates, and whether it wore one."""
    changed = False
    for name, take in takings():
        made = take(row) if name in accepted else None
        row, changed = made or row, changed or made is not None
    return row, changed


def clean(settings: Settings, source: Path, target: Path, rank: int, world: int) -> None:
    """Rows that can be learnt from, the others with the reason, and of each row what the global steps need to know."""
    pairs = [bare(row, settings["accepted"].get(row.meta.source, [])) for row in read_rows(source / "rows.jsonl")]
    rows, wrong = check(with_system([row for row, _ in pairs], settings["system"]))
    write_jsonl(target / "rows.jsonl", (row.to_json() for row in rows))
    write_jsonl(target / WRONG, (found.to_json() for found in wrong))
    write_jsonl(target / "index.jsonl", map(entry, rows))
    write_json(target / "counts.json", {"unwrapped": sum(changed for _, changed in pairs)})


def entry(row: Row) -> dict[str, Any]:
    """A row in the index: what it asks, and hashes of what it says and answers."""
    keys = {"same": _hash(same_key(row)), "answer": _hash(answer_key(row))}
    return {"said": said(row), **keys, "meta": row.meta.to_json()}


def _hash(key: Sequence[str]) -> str:
    return hashlib.blake2b(dump(list(key)).encode(), digest_size=16).hexdigest()


def deal(settings: Settings, source: Path, target: Path, rank: int, world: int) -> None:
    """Every row to the split, or among the rejects, that the global steps decided on.

    `source` holds decisions.jsonl, a line a row: {"split", "group"} or {"reason", "detail"}; `settings["rows"]` is the
    folder of the shards that `clean` made.
    """
    rows = read_jsonl(Path(settings["rows"]) / source.name / "rows.jsonl")
    decided = zip(rows, read_jsonl(source / "decisions.jsonl"), strict=True)
    dealt: dict[str, list[dict[str, Any]]] = {name: [] for name in ("train", "valid", "test", *DECIDED)}
    for obj, decision in decided:
        if "split" in decision:
            obj["meta"]["group"] = decision["group"]
            dealt[decision["split"]].append(obj)
        else:
            found = reject(Row.from_json(obj), decision["reason"], decision["detail"])
            dealt[decision["reason"]].append(found.to_json())
    for name, objects in dealt.items():
        write_jsonl(target / f"{name}.jsonl", objects)


def measure(settings: Settings, source: Path, target: Path, rank: int, world: int) -> None:
    """Exact tokens of every row, in order; 0 where the template refuses it."""
    from tunesmith.text.length import lengths
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer

    renderer = Renderer(Tokenizer.load(Path(settings["tokenizer"])), settings["template"], settings["train_on"])
    write_json(target / "lengths.json", lengths(read_rows(source / "rows.jsonl"), renderer))


Step = Callable[[Settings, Path, Path, int, int], None]
STEPS: dict[str, Step] = {step.__name__: step for step in (adopt, count_templates, clean, deal, measure)}
