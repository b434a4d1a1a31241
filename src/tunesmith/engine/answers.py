"""What was asked, what came back and what it cost: one SQLite file (WAL), shared by every run of a project.

`answers` is the cache: a reply by the hash of what was asked, whichever endpoint gave it. `requests` is the ledger: a
request is written before it is sent and closed, in one transaction with its answer, before the answer is used. So a
kill at any moment loses at most what was on its way, and that stays in the ledger as a request without an answer.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.core.errors import UsageError
from tunesmith.engine.base import Reply

TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, job TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, sent REAL NOT NULL,
    seconds REAL, status INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER, cost REAL, most REAL);
CREATE INDEX IF NOT EXISTS requests_of_job ON requests (job);
CREATE TABLE IF NOT EXISTS jobs (job TEXT PRIMARY KEY, requests INTEGER NOT NULL, spent REAL NOT NULL);
"""
ROUNDING = 1e-9  # of a cap that is left unused: running sums of prices are not exact
ENTER = """
INSERT INTO jobs VALUES (?, 1, ?)
ON CONFLICT (job) DO UPDATE SET requests = requests + 1, spent = spent + excluded.spent
"""
CORRECT = """
UPDATE jobs SET requests = requests + :requests,
    spent = spent + coalesce(:cost - (SELECT most FROM requests WHERE id = :id), 0)
WHERE job = (SELECT job FROM requests WHERE id = :id)
"""
SUMS = """
SELECT count(*), coalesce(sum(status = 200), 0), count(*) - count(prompt_tokens), coalesce(sum(prompt_tokens), 0),
       coalesce(sum(completion_tokens), 0), sum(cost), coalesce(sum(CASE WHEN cost IS NULL THEN most END), 0)
FROM requests WHERE job = ?
"""
LOST = 0  # the status of a request whose answer never came whole: the endpoint may have worked, and may bill, for it


@dataclass(frozen=True)
class Ledger:
    """All requests of a job, over all of its runs.

    `unmeasured`: those whose tokens nobody told us (cut off, timed out, killed, or answered without a count); they are
    in no other sum, and cost at most `unmeasured_cost`. `cost` is None where nothing with a price came back.
    """

    requests: int
    answered: int
    unmeasured: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    unmeasured_cost: float

    @property
    def most(self) -> float:
        """What it has cost at the very most."""
        return (self.cost or 0.0) + self.unmeasured_cost


@dataclass(frozen=True)
class Closed:
    """How a request ended: HTTP status (LOST where there was none), tokens and cost, None where they are not known."""

    status: int
    seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Caps:
    """Limits over all runs of a job."""

    max_requests: int | None = None
    max_cost: float | None = None


class Answers:
    """The open file; without a path it lives in memory, for this process alone."""

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:  # used from one thread at a time, which is not always the one that opened it
            self._db = sqlite3.connect(path or ":memory:", timeout=60, isolation_level=None, check_same_thread=False)
            _patiently(self._db, "PRAGMA journal_mode = WAL")
            _patiently(self._db, "PRAGMA synchronous = FULL")  # an answer that was paid for outlives a power cut
            _patiently(self._db, TABLES)
        except sqlite3.DatabaseError as error:
            raise UsageError(f"not a file of answers: {error}", where=str(path), fix="move the file away") from error

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> Reply | None:
        found = self._db.execute("SELECT reply FROM answers WHERE key = ?", (key,)).fetchone()
        return Reply(**json.loads(found[0])) if found else None

    def keys(self) -> set[str]:
        return {key for (key,) in self._db.execute("SELECT key FROM answers")}

    def put(self, key: str, request: str, reply: Reply) -> None:
        """Keep an answer that no endpoint was asked for: a local model's."""
        self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (key, request, json.dumps(asdict(reply))))

    def open_request(self, job: str, key: str, model: str, most: float | None, caps: Caps) -> int | None:
        """Enter a request that is about to be sent, and give its number; None where it could pass a cap.

        `most` is what it can cost. The check and the entry are one transaction: two processes do not pass a cap either.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            found = self._db.execute("SELECT requests, spent FROM jobs WHERE job = ?", (job,)).fetchone()
            requests, spent = found or (0, 0.0)
            if caps.max_requests is not None and requests + 1 > caps.max_requests:
                return None
            if caps.max_cost is not None and spent + (most or 0.0) > caps.max_cost * (1 - ROUNDING):
                return None
            self._db.execute(ENTER, (job, most or 0.0))
            values = (job, key, model, time.time(), most)
            sql = "INSERT INTO requests (job, key, model, sent, most) VALUES (?, ?, ?, ?, ?)"
            return self._db.execute(sql, values).lastrowid

    def close_request(self, number: int, end: Closed, answer: tuple[str, str, Reply] | None = None) -> None:
        """Enter how it ended, together with its (key, request, reply) where it was answered."""
        values = (end.status, end.seconds, end.prompt_tokens, end.completion_tokens, end.cost, number)
        sql = "UPDATE requests SET status=?, seconds=?, prompt_tokens=?, completion_tokens=?, cost=? WHERE id=?"
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(CORRECT, {"requests": 0, "cost": end.cost, "id": number})
            self._db.execute(sql, values)
            if answer is not None:
                self.put(*answer)

    def forget_request(self, number: int) -> None:
        """It was never sent: there was no connection."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(CORRECT, {"requests": -1, "cost": 0.0, "id": number})
            self._db.execute("DELETE FROM requests WHERE id = ?", (number,))

    def ledger(self, job: str) -> Ledger:
        requests, answered, unmeasured, prompt, completion, cost, most = self._db.execute(SUMS, (job,)).fetchone()
        return Ledger(requests, answered, unmeasured, prompt, completion, cost, most)

    def seconds(self, key: str) -> float | None:
        """How long the endpoint took over an answer that is stored; None where no endpoint gave it."""
        sql = "SELECT seconds FROM requests WHERE key = ? AND status = 200 ORDER BY id DESC LIMIT 1"
        found = self._db.execute(sql, (key,)).fetchone()
        return found[0] if found else None

    def pace(self, model: str) -> tuple[int, float, float] | None:
        """(number, mean seconds, mean completion tokens) of a model's answers so far; None where there are none."""
        sql = "SELECT count(*), avg(seconds), avg(completion_tokens) FROM requests WHERE model = ? AND status = 200"
        count, seconds, tokens = self._db.execute(sql, (model,)).fetchone()
        return (count, seconds, tokens) if count and tokens is not None else None


def _patiently(db: sqlite3.Connection, script: str) -> None:
    """Run it, again and again while another process opens the same file: the timeout does not cover that."""
    for tries in range(600):
        try:
            db.executescript(script)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or tries == 599:
                raise
            time.sleep(0.05)
