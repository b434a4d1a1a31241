"""What changed from one set to another, row by row, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.artifact import Artifact
from tunesmith.core.jsonl import read_jsonl, read_rows
from tunesmith.core.records import Row
from tunesmith.prepare.clean import place
from tunesmith.prepare.groups import asked
from tunesmith.prepare.split import SPLITS

SHOWN = 10  # rows of a kind in the text; the facts hold all
REJECTED, ELSEWHERE = "rejected: ", "not in what was collected for the other set"
KINDS = {  # of a change -> how it is told
    "came": "came",
    "went": "went",
    "changed": "changed: the same question, another answer",
    "moved": "moved to another split",
}


@dataclass(frozen=True)
class _Placed:
    """A row and its split."""

    row: Row
    split: str

    @property
    def question(self) -> tuple[str, str]:
        """What makes two rows the same question: what is asked, under which system message."""
        return "\n".join(m.content for m in self.row.messages if m.role == "system"), asked(self.row)

    def told(self) -> dict[str, str]:
        row = self.row
        return {"id": row.id, "place": place(row), "split": self.split, "question": _short(row.question)}


def diff(a: Artifact, b: Artifact) -> tuple[dict[str, Any], str]:
    """(facts, text): the rows that came, went, changed or moved from set `a` to set `b`, each with the reason.

    The same row is one with the same id. A row that went and one that came are one changed row where they ask the same.
    """
    old, new = _placed(a), _placed(b)
    went = [old[key] for key in old.keys() - new.keys()]
    came = [new[key] for key in new.keys() - old.keys()]
    changed, went, came = _changed(_sorted(went), _sorted(came))
    moved = [(old[key], new[key]) for key in old.keys() & new.keys() if old[key].split != new[key].split]
    config = _config(a, b)
    facts = {
        "a": a.name,
        "b": b.name,
        "rows": {a.name: len(old), b.name: len(new)},
        "same": len(old.keys() & new.keys()) - len(moved),
        "came": _explained(came, a),
        "went": _explained(went, b),
        "changed": [_change(before, after) for before, after in changed],
        "moved": [_move(pair, config) for pair in sorted(moved, key=lambda pair: _order(pair[1]))],
        "config": config,
        "parents": _parents(a, b),
    }
    return facts, _text(facts)


def _placed(artifact: Artifact) -> dict[str, _Placed]:
    """Rows by id; one that stands twice has a number after it."""
    out: dict[str, _Placed] = {}
    seen: Counter[str] = Counter()
    for side in SPLITS:
        for row in read_rows(artifact.path / f"{side}.jsonl"):
            seen[row.id] += 1
            out[f"{row.id} {seen[row.id]}"] = _Placed(row, side)
    return out


def _order(placed: _Placed) -> tuple[str, int, str]:
    return placed.row.meta.source, placed.row.meta.line, placed.row.id


def _sorted(found: Iterable[_Placed]) -> list[_Placed]:
    return sorted(found, key=_order)


def _changed(
    went: Sequence[_Placed], came: Sequence[_Placed]
) -> tuple[list[tuple[_Placed, _Placed]], list[_Placed], list[_Placed]]:
    """Pair rows that ask the same, in order; what is left over went or came."""
    waiting: dict[tuple[str, str], list[_Placed]] = {}
    for placed in went:
        waiting.setdefault(placed.question, []).append(placed)
    pairs, new = [], []
    for placed in came:
        same = waiting.get(placed.question)
        if same and not placed.row.text:
            pairs.append((same.pop(0), placed))
        else:
            new.append(placed)
    paired = {id(before) for before, _ in pairs}
    return pairs, [placed for placed in went if id(placed) not in paired], new


def _explained(found: Sequence[_Placed], other: Artifact) -> list[dict[str, str]]:
    """Each row with why it is not in the other set: rejected there, or never collected for it."""
    rejects = {(obj["source"], obj["line"]): obj for obj in read_jsonl(other.path / "rejects.jsonl")}
    out = []
    for placed in found:
        reject = rejects.get((placed.row.meta.source, placed.row.meta.line))
        why = ELSEWHERE
        if reject:
            why = f"{REJECTED}{reject['reason']}" + (f" ({reject['detail']})" if reject["detail"] else "")
        out.append(placed.told() | {"why": f"{why} in {other.name}" if reject else why})
    return out


def _change(before: _Placed, after: _Placed) -> dict[str, str]:
    told = after.told() | {"before": _short(_answer(before.row)), "after": _short(_answer(after.row))}
    origin = after.row.meta.origin
    why = f"{origin} row" if origin != before.row.meta.origin else "another answer"
    why += "" if place(before.row) == place(after.row) else f", from {place(before.row)} to {place(after.row)}"
    return told | {"id_before": before.row.id, "split_before": before.split, "why": why}


def _answer(row: Row) -> str:
    return row.answer if row.chosen is None else f"chosen: {row.chosen} rejected: {row.rejected}"


def _move(pair: tuple[_Placed, _Placed], config: dict[str, list[Any]]) -> dict[str, str]:
    before, after = pair
    asks = [key for key in ("seed", "valid_fraction", "test_fraction", "leak_threshold") if key in config]
    if asks:
        why = f"{', '.join(asks)} changed, which asks for a new split"
    elif before.row.meta.group != after.row.meta.group:
        why = "it is grouped with other rows now"
    else:
        why = f"the sets were split without one another: {before.split} was drawn, then {after.split}"
    return after.told() | {"split_before": before.split, "why": why}


def _config(a: Artifact, b: Artifact) -> dict[str, list[Any]]:
    """The settings that differ: [in a, in b]."""
    old, new = a.facts.get("config", {}), b.facts.get("config", {})
    return {key: [old.get(key), new.get(key)] for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def _parents(a: Artifact, b: Artifact) -> dict[str, list[str]]:
    """The collected artifacts that only one of the sets was made from, where the sets say so."""
    old, new = a.facts.get("parents", {}), b.facts.get("parents", {})
    return {"only_a": sorted(old.keys() - new.keys()), "only_b": sorted(new.keys() - old.keys())}


def _text(facts: dict[str, Any]) -> str:
    counts = ", ".join(f"{len(facts[kind])} {kind}" for kind in KINDS)
    lines = [f"{facts['a']} -> {facts['b']}: {facts['same']} rows are the same, {counts}"]
    lines += [f"  config {key}: {old} -> {new}" for key, (old, new) in facts["config"].items()]
    lines += [f"  no longer made from raw {name}" for name in facts["parents"]["only_a"]]
    lines += [f"  now made from raw {name}, too" for name in facts["parents"]["only_b"]]
    for kind, told in KINDS.items():
        rows = facts[kind]
        if rows:
            lines += ["", f"{told} ({len(rows)})", *_reasons(rows), *(f"  {_line(row)}" for row in rows[:SHOWN])]
            lines += [f"  and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    return "\n".join(lines)


def _reasons(rows: Sequence[dict[str, str]]) -> list[str]:
    """How often each reason occurs, without its details."""
    why = Counter(row["why"].split(" (")[0] for row in rows)
    return [f"  {count} x {reason}" for reason, count in why.most_common()] if len(rows) > 1 else []


def _line(row: dict[str, str]) -> str:
    split = f"{row['split_before']} -> {row['split']}" if "split_before" in row else row["split"]
    split = row["split"] if row.get("split_before") == row["split"] else split
    answers = f" | {row['before']} -> {row['after']}" if "before" in row else ""
    return f"{row['place']} [{split}] {row['question']}{answers}: {row['why']}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."
