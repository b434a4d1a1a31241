"""Blind votes of people on pairs of answers: what is shown on which side, and a store that nothing is lost from.

The terminal page and the web page are faces over the same `Booth`. Nobody is told which model answered.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError, UsageError, did_you_mean
from tunesmith.core.jsonl import read_jsonl
from tunesmith.core.records import Message, Meta, Reject, Row
from tunesmith.metrics.overlap import normalise
from tunesmith.metrics.rating import Vote

Choice = Literal["left", "right", "tie", "both_bad", "skip"]
REPEATS = 0.1  # of the pairs, shown again with the sides swapped: does the rater say the same?
GAP = 5  # votes at least between a pair and its repeat
TABLES = """
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, evaluation TEXT NOT NULL, hash TEXT NOT NULL, rater TEXT NOT NULL,
    item TEXT NOT NULL, left TEXT NOT NULL, right TEXT NOT NULL, choice TEXT NOT NULL CHECK
        (choice IN ('left', 'right', 'tie', 'both_bad', 'skip', 'undo')),
    again INTEGER NOT NULL, undoes INTEGER REFERENCES votes (id), shown TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS votes_are_not_changed BEFORE UPDATE ON votes
    BEGIN SELECT RAISE(ABORT, 'votes are only ever added'); END;
CREATE TRIGGER IF NOT EXISTS votes_are_not_deleted BEFORE DELETE ON votes
    BEGIN SELECT RAISE(ABORT, 'votes are only ever added'); END;
"""
COLUMNS = "evaluation, hash, rater, item, left, right, choice, again, shown"


@dataclass(frozen=True)
class Ballot:
    """Two answers to one item, by the arms `a` and `b`."""

    item: str
    prompt: tuple[Message, ...]
    group: str
    a: str
    b: str
    answers: Mapping[str, str]  # arm -> text


@dataclass(frozen=True)
class Shown:
    """A ballot as one rater sees it. `again`: a hidden repeat, the other way round."""

    ballot: Ballot
    left: str
    right: str
    again: bool

    @property
    def texts(self) -> tuple[str, str]:
        return self.ballot.answers[self.left], self.ballot.answers[self.right]


@dataclass(frozen=True)
class Cast:
    """A vote as it lies in the store. `shown`: prompt, group and both answers as JSON: it outlives the evaluation."""

    evaluation: str
    hash: str
    rater: str
    item: str
    left: str
    right: str
    choice: str
    again: bool
    shown: str

    @property
    def winner(self) -> str | None:
        """The arm that was preferred."""
        return {"left": self.left, "right": self.right}.get(self.choice)

    def vote(self, names: Mapping[str, str]) -> Vote:
        """For a ranking; `names`: what to call the arms there. Always the same arm first, whichever side it had."""
        a, b = sorted((self.left, self.right))
        winner = "a" if self.winner == a else "b" if self.winner == b else self.choice
        return Vote(self.item, names.get(a, a), names.get(b, b), winner, self.rater)  # type: ignore[arg-type]


def ballots(evaluation: Artifact, arms: Sequence[str], rows: Mapping[str, Row]) -> tuple[list[Ballot], int]:
    """(the pairs of two arms whose answers differ, how many do not): equal answers are a tie, and not asked.

    `rows`: those of the set by id, for prompts of several turns. Raises UsageError on an arm that there is not.
    """
    found, equal = [], 0
    for obj in read_jsonl(evaluation.path / "predictions.jsonl"):
        answers = {"base": obj["base"], "tuned": obj["tuned"], **obj["arms"]}
        for arm in arms:
            if arm not in answers:
                raise UsageError(f"no arm '{arm}' in {evaluation.name}", fix=did_you_mean(arm, answers))
        a, b = arms
        if normalise(answers[a]) == normalise(answers[b]):
            equal += 1
            continue
        row = rows.get(obj["id"])
        prompt = row.prompt if row else (Message("user", obj["prompt"]),)
        found.append(Ballot(obj["id"], prompt, obj["group"], a, b, {arm: answers[arm] for arm in arms}))
    return found, equal


class VoteStore:
    """The table `votes` of a project's tunesmith.db. Rows are added and never changed; `undo` is a row too."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {TABLES}")
        except sqlite3.DatabaseError as error:  # locked by another process for a minute, or no database at all
            raise UsageError(
                f"the votes cannot be opened: {error}", where=str(path), fix="try again, or move the file away"
            ) from error

    def close(self) -> None:
        self._db.close()

    def add(self, cast: Cast, undoes: int | None = None) -> int:
        """Write one down, on the disk when this returns; its number."""
        values = (datetime.now(UTC).isoformat(), *asdict(cast).values(), undoes)
        sql = f"INSERT INTO votes (at, {COLUMNS}, undoes) VALUES ({', '.join('?' * len(values))})"
        return int(self._db.execute(sql, values).lastrowid or 0)

    def standing(self, hash: str | None = None, rater: str | None = None) -> list[tuple[int, Cast]]:
        """(number, vote) of those that were not taken back, skips too, in their order."""
        undone = "SELECT undoes FROM votes WHERE undoes IS NOT NULL"
        sql = f"SELECT id, {COLUMNS} FROM votes WHERE choice != 'undo' AND id NOT IN ({undone})"
        wanted = {"hash": hash, "rater": rater}
        given = {name: value for name, value in wanted.items() if value is not None}
        sql += "".join(f" AND {name} = :{name}" for name in given) + " ORDER BY id"
        rows = self._db.execute(sql, given)
        return [(row[0], Cast(*(*row[1:8], bool(row[8]), row[9]))) for row in rows]


class Booth:
    """One rater before the pairs of one evaluation. What was decided is in the store; a booth can be opened again."""

    def __init__(self, store: VoteStore, evaluation: Artifact, pairs: Iterable[Ballot], rater: str) -> None:
        self.store, self.evaluation, self.rater = store, evaluation, rater
        self._ballots = {pair.item: pair for pair in sorted(pairs, key=lambda pair: self._draw("order", pair))}
        self._skipped: list[str] = []  # in this session: they come again in the next one

    @property
    def cast(self) -> list[tuple[int, Cast]]:
        """The rater's votes on these arms that stand, skips left out."""
        arms = {frozenset((pair.a, pair.b)) for pair in self._ballots.values()}
        mine = self.store.standing(self.evaluation.hash, self.rater)
        return [(n, v) for n, v in mine if v.choice != "skip" and frozenset((v.left, v.right)) in arms]

    def next(self) -> Shown | None:
        """The next pair: a repeat that is due, a new one, or a repeat that is left over. None when all is done."""
        cast = [vote for _, vote in self.cast]
        decided = [vote.item for vote in cast if not vote.again]
        repeated = {vote.item for vote in cast if vote.again}
        waiting = [item for item in decided if self._repeats(item) and item not in repeated]
        due = [item for item in waiting if item not in [vote.item for vote in cast[-GAP:]]]
        fresh = [item for item in self._ballots if item not in decided and item not in self._skipped]
        if due:
            return self._shown(due[0], again=True)
        if fresh:
            return self._shown(fresh[0], again=False)
        left = [item for item in waiting if item not in self._skipped]
        return self._shown(left[0], again=True) if left else None

    def choose(self, shown: Shown, choice: Choice) -> None:
        """Write a choice down; it is on the disk when this returns."""
        if choice == "skip":
            self._skipped.append(shown.ballot.item)
        self.store.add(self._cast(shown, choice))

    def undo(self) -> bool:
        """Take the last choice of this rater back; False where there is none."""
        mine = self.store.standing(self.evaluation.hash, self.rater)
        if not mine:
            return False
        number, last = mine[-1]
        self._skipped = [item for item in self._skipped if item != last.item]
        self.store.add(Cast(*{**asdict(last), "choice": "undo"}.values()), undoes=number)
        return True

    def progress(self) -> dict[str, int]:
        """voted, skipped (in this session), and left of the pairs; repeats are not told apart: they are hidden."""
        decided = {vote.item for _, vote in self.cast if not vote.again}
        skipped = len(set(self._skipped) - decided)
        return {"voted": len(decided), "skipped": skipped, "left": len(self._ballots) - len(decided) - skipped}

    def _shown(self, item: str, again: bool) -> Shown:
        """Which arm is on the left is drawn for each item and rater; a repeat has the other side."""
        ballot = self._ballots[item]
        left, right = sorted((ballot.a, ballot.b))
        if (self._draw("side", ballot) < 0.5) != again:
            left, right = right, left
        return Shown(ballot, left, right, again)

    def _repeats(self, item: str) -> bool:
        return item in self._ballots and self._draw("repeat", self._ballots[item]) < REPEATS

    def _draw(self, what: str, ballot: Ballot) -> float:
        """A number in 0..1, the same each time for this rater and pair."""
        arms = sorted((ballot.a, ballot.b))
        told = json.dumps([what, self.evaluation.hash, self.rater, ballot.item, arms])
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8]) / 2**64

    def _cast(self, shown: Shown, choice: str) -> Cast:
        prompt = [message.to_json() for message in shown.ballot.prompt]
        told = {"prompt": prompt, "group": shown.ballot.group, "left": shown.texts[0], "right": shown.texts[1]}
        where = self.evaluation.name, self.evaluation.hash, self.rater, shown.ballot.item
        return Cast(*where, shown.left, shown.right, choice, shown.again, json.dumps(told))


def first_votes(casts: Iterable[Cast]) -> list[Cast]:
    """Those that count for a ranking: no skips and no hidden repeats."""
    return [vote for vote in casts if vote.choice != "skip" and not vote.again]


def consistency(casts: Sequence[Cast]) -> list[dict[str, object]]:
    """Of each rater: hidden repeats, how many of them said the same, and the share of A among the votes for a side."""
    out: list[dict[str, object]] = []
    for rater in sorted({vote.rater for vote in casts}):
        mine = [vote for vote in casts if vote.rater == rater and vote.choice != "skip"]
        first = {(v.hash, v.item, frozenset((v.left, v.right))): v for v in mine if not v.again}
        pairs = [(first.get((v.hash, v.item, frozenset((v.left, v.right)))), v) for v in mine if v.again]
        told = [(x.winner or x.choice) == (y.winner or y.choice) for x, y in pairs if x is not None]
        sides = Counter(vote.choice for vote in mine)
        sided = sides["left"] + sides["right"]
        share = sides["left"] / sided if sided else None
        out.append({"rater": rater, "repeats": len(told), "same": sum(told), "first_slot": share, "sided": sided})
    return out


def preferences(casts: Sequence[Cast]) -> tuple[list[Row], list[Reject]]:
    """Votes as (rows with chosen and rejected, what could not be one): a row an item and pair of texts, by majority.

    Rejects have the reasons tie (as many for one as for the other) and both_bad (a vote said that neither will do, and
    no more preferred one). Votes in = those behind rows and rejects.
    """
    rows, rejects = [], []
    for number, votes in enumerate(_by_texts(casts), 1):
        told = json.loads(votes[0].shown)
        tally = Counter(text for vote in votes if (text := _preferred(vote)) is not None)
        bad = sum(vote.choice == "both_bad" for vote in votes)
        place = f"votes on {votes[0].evaluation}"
        texts = sorted((told["left"], told["right"]), key=lambda text: -tally[text])
        margin = tally[texts[0]] - tally[texts[1]]
        if margin <= bad or not margin:
            said = f"{tally[texts[0]]} and {tally[texts[1]]} of {len(votes)} votes, {bad} for neither"
            reason = "both_bad" if bad else "tie"
            rejects.append(Reject(place, number, reason, said, votes[0].item))
            continue
        prompt = tuple(Message(m["role"], m["content"]) for m in told["prompt"])
        rows.append(Row(prompt, chosen=texts[0], rejected=texts[1], meta=Meta(place, number, "human", told["group"])))
    return rows, rejects


def _by_texts(casts: Sequence[Cast]) -> Iterator[list[Cast]]:
    """The votes that count, together where prompt and both texts are the same."""
    found: dict[tuple[str, frozenset[str]], list[Cast]] = {}
    for vote in first_votes(casts):
        told = json.loads(vote.shown)
        key = json.dumps(told["prompt"]), frozenset((told["left"], told["right"]))
        found.setdefault(key, []).append(vote)
    yield from found.values()


def _preferred(vote: Cast) -> str | None:
    """The text that was preferred."""
    return json.loads(vote.shown)[vote.choice] if vote.choice in ("left", "right") else None


def check_rater(name: str) -> str:
    """Raises DataError on a name that could not be told from none."""
    if not name.strip():
        raise DataError("a rater without a name", fix="--rater NAME")
    return name.strip()
