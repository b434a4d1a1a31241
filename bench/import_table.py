"""What `collect` makes of every file of ../shared/data that holds rows: a table of shapes, counts and questions.

    python bench/import_table.py [--data DIR] [--json FILE]

The exit code is 1 when a file ends in anything but rows or a question with what to type next, or when the counts of a
file do not add up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from tunesmith.collect.stage import CollectConfig, run
from tunesmith.core.errors import TunesmithError
from tunesmith.core.jsonl import read_jsonl

DATA = Path(__file__).resolve().parents[1] / "../shared/data"


def verdict(path: Path, name: str, out: Path) -> dict[str, Any]:
    """One line of the table. `ok`: the file was imported with counts that add up, or a question was asked."""
    line: dict[str, Any] = {"file": name, "shape": "", "rows_in": None, "kept": None, "rejected": {}, "question": ""}
    try:
        with redirect_stderr(StringIO()):
            made = run(CollectConfig(), [path], out / name)
    except TunesmithError as error:
        return line | {"question": f"{error.what} -> {error.fix}", "ok": bool(error.what and error.fix)}
    facts = made.facts["files"][0]
    found = {key: facts[key] for key in ("shape", "rows_in", "kept", "rejected")}
    kept, left = (sum(1 for _ in read_jsonl(made.path / f"{part}.jsonl")) for part in ("examples", "rejects"))
    whole = (kept, left) == (facts["kept"], sum(facts["rejected"].values())) and facts["rows_in"] == kept + left
    return line | found | {"ok": whole}


def table(folder: Path) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as out:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "README.md")
        return [verdict(path, path.relative_to(folder).as_posix(), Path(out)) for path in paths]


def folded(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Files of one folder with the same shape, or the same kind of question, as one line with their sums."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in lines:
        folder = line["file"].rpartition("/")[0].removesuffix("/dev").removesuffix("/test")
        folder = "lamini/docs" if folder.startswith("lamini/docs") else folder
        kind = line["question"].split(":")[0][:40]
        many = folder in ("mmlu", "corpus", "lamini/docs", "normalised")
        groups.setdefault((folder if many else line["file"], line["shape"], kind), []).append(line)
    return [_sum(group) for group in groups.values()]


def _sum(group: list[dict[str, Any]]) -> dict[str, Any]:
    first = group[0]
    if len(group) == 1:
        return first
    rejected: Counter[str] = Counter()
    for line in group:
        rejected.update(line["rejected"])
    sums = {key: sum(line[key] for line in group) if first["shape"] else None for key in ("rows_in", "kept")}
    name = f"{first['file']} and {len(group) - 1} like it"
    return first | sums | {"file": name, "rejected": dict(rejected), "ok": all(line["ok"] for line in group)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"NOT RUN: there is no {arguments.data}")
        return 0
    lines = table(arguments.data)
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    print("| file | shape | rows in | kept | rejected | or the question asked |\n|---|---|---|---|---|---|")
    for line in folded(lines):
        rejected = ", ".join(f"{count} {reason}" for reason, count in line["rejected"].items())
        question = line["question"].replace("|", "\\|").replace("\n", " ")
        counts = ["" if line[key] is None else str(line[key]) for key in ("rows_in", "kept")]
        print(f"| {' | '.join([line['file'], line['shape'], *counts, rejected, question])} |")
    imported = sum(bool(line["shape"]) for line in lines)
    print(f"\n{len(lines)} files: {imported} imported without a flag, {len(lines) - imported} stopped with a question")
    return 0 if all(line["ok"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
