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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, make_folder, open_artifact, seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import dump, read_json, read_jsonl, write_json, write_jsonl
from tunesmith.core.records import Message, Meta, Row
from tunesmith.prepare.arrange import Arranged, arrange, earlier
from tunesmith.prepare.config import PrepareConfig
from tunesmith.prepare.parents import kinship
from tunesmith.prepare.shards import Job, Runner, check_complete, run_local, shard_name, write_shards
from tunesmith.prepare.split import SPLITS
from tunesmith.prepare.steps import DECIDED, REWRITTEN, WRONG, Accepted
from tunesmith.text.residue import SHARE, takings

VERSION = 1  # of what the same rows become; part of a set's name
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
    facts = _facts(config, raw, cleaned, decided) | {"kind": kind, "notes": _notes(accepted)}
    del decided
    dealt = steps.run("deal", "decided", {"rows": str(cleaned.folder.absolute())})
    made = _write(config, raw, out, (cleaned, dealt), facts)
    shutil.rmtree(work)
    return made


def _notes(accepted: Accepted) -> list[str]:
    taken = [f"template taken off: {source}: {name}" for source, names in accepted.items() for name in names]
    return [*taken, "findings and scores: NOT RUN, they need all rows in memory"]


def _check(config: PrepareConfig) -> None:
    if config.valid_fraction + config.test_fraction >= 1:
        raise UsageError("valid_fraction + test_fraction must be below 1: the rest is trained on")
    for name in ("reject", "benchmarks"):
        if getattr(config, name):
            what = f"{name} needs the findings, which are not made of a corpus in shards"
            raise UsageError(what, fix=f"take {name} out of [prepare], or prepare without shards")


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
    if not kin.parents and not kin.replaced:
        return "in"
    steps.run("adopt", "in", {"parents": sorted(kin.parents), "replaced": kin.replaced})
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
        for file, counted in counts.items():
            wears = (name for name in names if counted["filled"] and counted[name] >= SHARE * counted["filled"])
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
        if found["first"] and first[0] and found["first"][0] != first[0]:
            what = f"{found['first'][0]} among {first[0]} (from {first[1]})"
            fix = "collect the files of each kind into a project of their own"
            raise DataError(what, where=found["first"][1], expected="rows of one kind in a set", fix=fix)
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
    """The receipt. Raises DataError when no row is left."""
    rejected = Counter(obj["reason"] for artifact in raw for obj in read_jsonl(artifact.path / "rejects.jsonl"))
    rejected.update(obj["reason"] for path in _early(cleaned) for obj in read_jsonl(path))
    for reason in DECIDED:
        if count := sum(first == reason for first, _ in decided.decisions):
            rejected[reason] += count
    kept = len(decided.made.rows)
    if not kept:
        raise DataError("no row is left", expected=f"rejected: {dict(rejected)}")
    return {
        "rows_in": kept + rejected.total(),
        "kept": kept,
        "rejected": dict(rejected),
        "unwrapped": sum(read_json(shard / "counts.json")["unwrapped"] for shard in _shards(cleaned)),
        "duplicates": decided.duplicates,
        **decided.made.counts(config),
    }


def _early(cleaned: Job) -> list[Path]:
    """The rejects that were made a shard at a time, in the order of rejects.jsonl."""
    rewritten = [shard / REWRITTEN for shard in sorted(cleaned.source.glob("[0-9]*")) if (shard / REWRITTEN).is_file()]
    return [*rewritten, *(shard / WRONG for shard in _shards(cleaned))]


def _join(target: Path, parts: Iterable[Path], digest: Callable[[bytes], None]) -> None:
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as lines:
                for line in lines:
                    out.write(line)
                    digest(line)


def _write(
    config: PrepareConfig, raw: Sequence[Artifact], out: Path, jobs: tuple[Job, Job], facts: dict[str, Any]
) -> Artifact:
    """Join the shards to a set; its name is a hash of the settings, the facts and every line."""
    cleaned, dealt = jobs
    rejects = [artifact.path / "rejects.jsonl" for artifact in raw]
    rejects += _early(cleaned)
    rejects += [shard / f"{reason}.jsonl" for reason in DECIDED for shard in _shards(dealt)]
    files = {f"{side}.jsonl": [shard / f"{side}.jsonl" for shard in _shards(dealt)] for side in SPLITS}
    settings = config.model_dump(mode="json")
    joined = cleaned.folder.parent / "joined"
    shutil.rmtree(joined, ignore_errors=True)
    make_folder(joined)
    digest = hashlib.sha256(dump([VERSION, settings, facts]).encode())
    for name, parts in (files | {"rejects.jsonl": rejects}).items():
        _join(joined / name, parts, digest.update)
    final = out / digest.hexdigest()[:12]
    if final.exists():
        return open_artifact(final, "set")
    facts = {"set_id": final.name, "path": str(final), **facts}
    with writing(final) as work:
        for path in joined.iterdir():
            shutil.move(path, work / path.name)
        write_json(work / "receipt.json", facts)
        (work / "report.md").write_text(_page(facts), encoding="utf-8", newline="\n")
        parents = {artifact.name: artifact.hash for artifact in raw}
        return seal(work, final, "set", facts | {"config": settings, "parents": parents})


def _page(facts: dict[str, Any]) -> str:
    """report.md of a set that was made in shards."""
    counts = ["rows_in", *(f"rejected: {reason}" for reason in facts["rejected"]), "kept", *SPLITS, "groups"]
    values = facts | {f"rejected: {reason}": count for reason, count in facts["rejected"].items()}
    lines = [f"# Set {facts['set_id']}", "", "| | rows |", "|---|---:|", *(f"| {c} | {values[c]} |" for c in counts)]
    leaks = f"{facts['leaked']} pairs of questions are alike across splits"
    lines += ["", f"{leaks}; in a random split it would be {facts['leaked_random_split']}."]
    return "\n".join([*lines, "", *(f"- {note}" for note in facts["notes"])]) + "\n"
