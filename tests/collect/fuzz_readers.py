"""Fuzz the readers: mutated nasty files and random bytes, in this process. Exit 1 at the first finding.

    python tests/collect/fuzz_readers.py --inputs 200000 --seed 1

For every input: nothing but a TunesmithError may come out, within 10 s; every kept row is a canonical row that can be
written and read back; every line of JSON lines and every reject is accounted for.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import runpy
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

from tunesmith.collect.stage import CollectConfig, sources
from tunesmith.collect.unpack import memory
from tunesmith.core.errors import TunesmithError
from tunesmith.core.jsonl import dump
from tunesmith.core.records import Row

CORPUS = runpy.run_path(str(Path(__file__).parent / "nasty" / "corpus.py"))
CASES = CORPUS["CASES"]
zipped = CORPUS["zipped"]
USERS = b'[{"id": "U1", "name": "ann", "profile": {"display_name": "Ann"}}, {"id": "U2"}]'
POSTS = json.dumps(
    [
        {"type": "message", "user": "U1", "text": "Where, <@U2>?", "ts": "1.0", "thread_ts": "1.0"},
        {
            "type": "message",
            "user": "U2",
            "text": "<https://x.y|There> &amp;",
            "ts": "2.0",
            "thread_ts": "1.0",
            "reactions": [{"name": "+1", "users": ["U1"], "count": 1}],
        },
        {"type": "message", "user": "U3", "text": "No.", "ts": "3.0", "thread_ts": "1.0"},
        {"type": "message", "subtype": "channel_join", "user": "U2", "text": "joined", "ts": "4.0"},
        {"type": "message", "bot_id": "B1", "text": "Done?", "ts": "5.0"},
    ],
    indent=1,
).encode()
LARGEST = 4096  # bytes of a seed: small inputs, many of them
SMALL = [case.data for case in CASES if len(case.data) <= LARGEST]
PACKED = [data for data in SMALL if data.startswith((b"PK", b"\x1f\x8b", b"BZh", b"\xfd7z"))]
SEEDS = [data for data in SMALL if data not in PACKED]
TOKENS = [
    *(
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"|",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"\\",
        b"\\u",
        b"?",
    ),
    *(b'{"', b'"}', b"null", b"NaN", b"1e999", b"true", b"-0", b"\\ud83d", b"\xff\xfe", b"\xef\xbb\xbf", b"\xf0\x9f"),
    *(
        b"\nFrom a@b\n",
        b"Subject: =?utf-8?q?x?=\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\n",
        b"> ",
        b"-- \n",
    ),
    *(
        b"\n# ",
        b"\n## x?\n",
        b"Q: ",
        b"\nA: ",
        b"**x?**\n",
        b"<details>",
        b"<summary>",
        b"```\n",
        b"<dt>",
        b"<![",
        b"<!--",
        b"&#x",
    ),
    *(b'"question"', b'"answer"', b'"messages"', b'"role"', b'"content"', b'"label"', b'"text"', b'"data"', b"\f"),
]
SECONDS = 10


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to five small changes, mostly few."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        at = chance.randrange(len(made) + 1)
        length = min(chance.choice((1, 1, 2, 4, 16, 64)), len(made) - at)
        match chance.choice((0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 7) if chance.random() < 0.5 else (2, 4, 5, 7)):
            case 0:
                made[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del made[at : at + length]
            case 2 | 3:
                made[at:at] = chance.choice(TOKENS)
            case 4:
                made[at:at] = made[at : at + length] * chance.choice((1, 2, 8))
            case 5:
                other = chance.choice(SEEDS)
                cut = chance.randrange(len(other) + 1)
                made[at:at] = other[cut : cut + 200]
            case 6:
                del made[at:]
            case 7:
                lines = bytes(made).split(b"\n")
                chance.shuffle(lines)
                made = bytearray(b"\n".join(lines))
    return bytes(made)


def example(chance: random.Random) -> bytes:
    """A mutated file; a damaged archive; an archive or an export of mutated files; random bytes."""
    kind = chance.random()
    if kind < 0.02:
        return chance.randbytes(chance.randrange(400))
    if kind < 0.06:
        return mutate(chance.choice(PACKED), chance)
    data = mutate(chance.choice(SEEDS), chance)
    if kind < 0.08:
        return gzip.compress(data, 1)
    if kind < 0.10:
        return zipped({"a": data, "b/c": chance.choice(SEEDS)})
    if kind < 0.16:
        return zipped({"users.json": mutate(USERS, chance), "channels.json": "[]", "c/1.json": mutate(POSTS, chance)})
    return data


def check(data: bytes) -> str:
    """What became of an input: the kind of error, or the shapes of its rows. AssertionError on a broken promise."""
    try:
        found = sources(CollectConfig(), memory(data, "f"))
    except TunesmithError as error:
        return _named(error)
    for source in found:
        count = 0
        try:
            for item in source.items():
                count += 1
                written = dump(item.to_json())
                assert not isinstance(item, Row) or Row.from_json(json.loads(written)) == item, (
                    "a row that does not read back"
                )
        except TunesmithError as error:
            return _named(error)
        facts = source.facts()
        assert count == facts["rows_in"] == facts["kept"] + sum(facts["rejected"].values()), "rows were lost"
        if facts["container"] == "jsonl" and source.shape.kind != "tickets":
            lines = sum(bool(line.strip()) for line in source.file.lines())
            assert count >= lines or count == 0 or lines == 1, f"{lines} lines, {count} rows"
    return found[0].file.container if len(found) == 1 else "several files"


def _named(error: TunesmithError) -> str:
    if not error.what or error.exit_code not in (2, 3):
        raise AssertionError("an error without words, or of the wrong kind") from error
    return type(error).__name__


class Hang(BaseException):
    """Not an Exception: no handler in the code under test may swallow it."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Hang(f"no answer within {SECONDS} s")


def fuzz(inputs: int, seed: int) -> Counter[str]:
    """Run that many inputs; return how they ended. The first finding raises, with the input beside it."""
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    signal.signal(signal.SIGALRM, _too_long)
    try:
        for number in range(inputs):
            data = example(chance)
            signal.alarm(SECONDS)
            try:
                seen[check(data)] += 1
            except (Exception, Hang) as error:
                raise AssertionError(f"input {number} of seed {seed}: {error!r}\n{data!r}") from error
    finally:
        signal.alarm(0)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    start = time.perf_counter()
    try:
        seen = fuzz(arguments.inputs, arguments.seed)
    except AssertionError:
        traceback.print_exc()
        return 1
    print(
        json.dumps({"inputs": seen.total(), "seed": arguments.seed, "seconds": round(time.perf_counter() - start, 1)})
    )
    print(json.dumps(dict(seen.most_common()), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
