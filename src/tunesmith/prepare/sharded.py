"""prepare for corpora that do not fit into memory: row-wise steps over shards, global steps over an index.

The same rows in the same splits, byte for byte, as `stage.run` makes of them. What is held at once is one shard a
worker, and the index: of every row what the user says, two hashes and where it comes from, plus the 256 bytes of its
MinHash signature (docs/scale.md has the measured bytes a row). Answers, which are most of a corpus, stay on disk.
Every step leaves its finished shards behind, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, make_folder
from tunesmith.core.errors import UsageError
from tunesmith.core.jsonl import dump, read_json, read_jsonl, write_jsonl
from tunesmith.core.records import Message, Meta, Row
from tunesmith.prepare.arrange import Arranged, arrange, earlier
from tunesmith.prepare.clean import same_kind
from tunesmith.prepare.config import PrepareConfig
from tunesmith.prepare.parents import kinship
from tunesmith.prepare.report import head, leak_note
from tunesmith.prepare.sets import MEASURES, VERSION, counted, name_of, seal_set, settings
from tunesmith.prepare.shards import Job, Runner, check_complete, run_local, shard_name, write_shards
from tunesmith.prepare.split import SPLITS
from tunesmith.prepare.steps import DECIDED, REWRITTEN, WRONG, Accepted
from tunesmith.text.residue import SHARE, takings

SHARD_ROWS = 20_000  # rows a shard: some 20 MB of Alpaca-like rows, ten times that while a worker has them


def run(
    config: PrepareConfig,
    raw: Sequence[Artifact],
    out: Path,
    previous: Artifact | None = None,
    system: str = "",
    *,
    runner: Runner = run_local,
    shard_rows: int = SHARD_ROWS,
) -> Artifact:
    """Write `out`/<id> as `stage.run` does, but for findings and scores, which need all rows in memory: NOT RUN.

    `runner` runs the ranks of a step: a local pool, or an adapter. Raises UsageError for settings that need the
    findings, DataError when rows of several kinds are mixed or none is left.
    """
    _check(config)
    work = out / f".sharded-{_identity(config, raw, previous, system, shard_rows)}"
    world = write_shards(work / "in", _lines(raw), shard_rows)
    steps = _Steps(work, world, runner)
    source = _families(steps, raw)
    accepted, kind = _templates(steps, source, config.unwrap == "auto")
    cleaned = steps.run("clean", source, {"accepted": accepted, "system": system})
    decided = _decide(config, _index(cleaned), earlier(config, previous))
    _write_decisions(work / "decided", cleaned, decided.decisions)
    facts = _facts(config, raw, cleaned, decided) | {"kind": kind}
    del decided
    dealt = steps.run("deal", "decided", {"rows": str(cleaned.folder.absolute())})
    files = _files(raw, cleaned, dealt)
    name = name_of(config, facts, (line for parts in files.values() for line in _joined(parts)))
    taken = [f"template taken off: {file}: {template}" for file, worn in accepted.items() for template in worn]
    told = [*taken, leak_note(facts), "findings and scores: NOT RUN, they need all rows in memory"]

    def fill(folder: Path, facts: dict[str, Any]) -> None:
        for file, parts in files.items():
            with (folder / file).open("wb") as lines:
                lines.writelines(_joined(parts))
        (folder / "report.md").write_text("\n".join(head(facts)) + "\n", encoding="utf-8", newline="\n")

    made = seal_set(out / name, {**facts, "notes": told}, settings(config, raw), fill)
    shutil.rmtree(work)
    return made


def _check(config: PrepareConfig) -> None:
    """Raise UsageError for settings that need all rows in memory."""
    for name in ("reject", "benchmarks", "difficulty", "judge"):
        if getattr(config, name):
            what = f"{name} needs all rows in memory, which a corpus in shards is spared"
            raise UsageError(what, fix=f"leave {name} out, or prepare without shards")


def _identity(
    config: PrepareConfig, raw: Sequence[Artifact], previous: Artifact | None, system: str, shard_rows: int
) -> str:
    """What a killed run must have in common with the one that goes on with its shards."""
    parents = [artifact.hash for artifact in (*raw, *([previous] if previous else []))]
    blob = dump([VERSION, config.model_dump(mode="json"), parents, system, shard_rows])
    return hashlib.sha256(blob.encode()).hexdigest()[:12]


def _lines(raw: Sequence[Artifact]) -> Iterator[str]:
    for artifact in raw:
        with (artifact.path / "examples.jsonl").open(encoding="utf-8", newline="\n") as lines:
            yield from (line.rstrip("\n") for line in lines if line.strip())


@dataclass(frozen=True)
class _Steps:
    """The folder of a run in shards, how many shards, and who runs them."""

    work: Path
    world: int
    runner: Runner

    def run(self, step: str, source: str, settings: dict[str, Any], name: str = "") -> Job:
        job = Job(self.work / (name or step), step, self.work / source, self.world, settings)
        job.save()
        self.runner(job)
        check_complete(job)
        return job


def _shards(job: Job) -> Iterator[Path]:
    return (job.shard(rank) for rank in range(job.world))


def _families(steps: _Steps, raw: Sequence[Artifact]) -> str:
    """The folder of the rows: as they were cut, or made heads of their families where there are generated rows."""
    kin = kinship(raw)
    if not kin.parents and not kin.gone:
        return "in"
    steps.run("adopt", "in", {"parents": sorted(kin.parents), "gone": kin.gone})
    return "adopt"


def _templates(steps: _Steps, source: str, unwrap: bool) -> tuple[Accepted, str]:
    """The templates that nearly all rows of a file wear, found one after the other, and the kind of the rows."""
    accepted: Accepted = {}
    names = [name for name, _ in takings()]
    while True:
        number = sum(map(len, accepted.values()))
        job = steps.run("count_templates", source, {"accepted": accepted}, f"templates-{number}")
        kind, counts = _counted(job)
        found = dict(accepted)
        for file, worn in counts.items():
            wears = (name for name in names if worn["filled"] and worn[name] >= SHARE * worn["filled"])
            if name := next(wears, None):
                found[file] = [*accepted.get(file, []), name]
        if found == accepted or not unwrap:
            return accepted, kind
        accepted = found


def _counted(job: Job) -> tuple[str, dict[str, Counter[str]]]:
    """The kind of all rows, and the counts of all shards by file. Raises DataError where the kinds differ."""
    total: dict[str, Counter[str]] = {}
    first = ["", ""]
    for folder in _shards(job):
        found = read_json(folder / "counts.json")
        if found["first"] and first[0]:
            same_kind(found["first"], first)
        first = first if first[0] else found["first"] or first
        for source, counts in found["counts"].items():
            total.setdefault(source, Counter()).update(counts)
    return first[0], total


Decision = tuple[str, str]  # a split and a group, or the reason of a reject and its detail


@dataclass(frozen=True)
class _Decided:
    """Where every row goes, in their order; and how that came about."""

    decisions: list[Decision]
    duplicates: int
    made: Arranged


def _index(cleaned: Job) -> Iterator[dict[str, Any]]:
    return (entry for folder in _shards(cleaned) for entry in read_jsonl(folder / "index.jsonl"))


def _decide(config: PrepareConfig, entries: Iterator[dict[str, Any]], before: Mapping[str, Sequence[Row]]) -> _Decided:
    """The global steps over the index: first what is there twice, then what `arrange` says of the rest."""
    first: dict[bytes, int] = {}
    places: list[tuple[str, int]] = []
    decisions: list[Decision] = []
    rows: list[Row] = []
    for number, entry in enumerate(entries):
        meta = Meta.from_json(entry["meta"])
        same = first.setdefault(bytes.fromhex(entry["same"]), number)
        places.append((meta.source, meta.line))
        twin = "{}:{}".format(*places[same])
        decisions.append(("", "") if same == number else ("duplicate", f"the same as {twin}"))
        if same == number:
            rows.append(_stand_in(number, entry, meta))
    del first, places
    made = arrange(config, rows, before)
    for side, members in made.splits.items():
        for row in members:
            decisions[_number(row)] = (side, row.meta.group)
    for row, reject in zip(made.left_out, made.rejects, strict=True):
        decisions[_number(row)] = (reject.reason, reject.detail)
    return _Decided(decisions, len(decisions) - len(rows), made)


def _stand_in(number: int, entry: dict[str, Any], meta: Meta) -> Row:
    """A row that asks the same, has equal answers where the real ones are equal, and knows its number."""
    turns = [Message("tool", str(number)), Message("user", entry["said"]), Message("assistant", entry["answer"])]
    return Row(tuple(turns), meta=meta)


def _number(row: Row) -> int:
    return int(row.messages[0].content)


def _write_decisions(folder: Path, cleaned: Job, decisions: Sequence[Decision]) -> None:
    """The decisions of each shard's rows, as the input of `deal`."""
    start = 0
    for rank, shard in enumerate(_shards(cleaned)):
        count = sum(1 for _ in read_jsonl(shard / "index.jsonl"))
        make_folder(folder / shard_name(rank))
        write_jsonl(folder / shard_name(rank) / "decisions.jsonl", map(_decision, decisions[start : start + count]))
        start += count


def _decision(decision: Decision) -> dict[str, str]:
    first, second = decision
    return {"split": first, "group": second} if first in SPLITS else {"reason": first, "detail": second}


def _facts(config: PrepareConfig, raw: Sequence[Artifact], cleaned: Job, decided: _Decided) -> dict[str, Any]:
    """Of the receipt, what does not depend on the run. Raises DataError when no row is left."""
    rejected = Counter(obj["reason"] for artifact in raw for obj in read_jsonl(artifact.path / "rejects.jsonl"))
    rejected.update(obj["reason"] for path in _early(cleaned) for obj in read_jsonl(path))
    for reason in DECIDED:
        if count := sum(first == reason for first, _ in decided.decisions):
            rejected[reason] += count
    return {
        **counted(len(decided.made.rows), rejected),
        "unwrapped": sum(read_json(shard / "counts.json")["unwrapped"] for shard in _shards(cleaned)),
        "duplicates": decided.duplicates,
        **decided.made.counts(config),
        **dict.fromkeys(MEASURES),
    }


def _early(cleaned: Job) -> list[Path]:
    """The rejects that were made a shard at a time, in the order of rejects.jsonl."""
    rewritten = [shard / REWRITTEN for shard in sorted(cleaned.source.glob("[0-9]*")) if (shard / REWRITTEN).is_file()]
    return [*rewritten, *(shard / WRONG for shard in _shards(cleaned))]


def _files(raw: Sequence[Artifact], cleaned: Job, dealt: Job) -> dict[str, list[Path]]:
    """Of each file of the set the parts that it is joined from."""
    rejects = [artifact.path / "rejects.jsonl" for artifact in raw]
    rejects += _early(cleaned)
    rejects += [shard / f"{reason}.jsonl" for reason in DECIDED for shard in _shards(dealt)]
    files = {f"{side}.jsonl": [shard / f"{side}.jsonl" for shard in _shards(dealt)] for side in SPLITS}
    return files | {"rejects.jsonl": rejects}


def _joined(parts: Iterable[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as lines:
            yield from lines
