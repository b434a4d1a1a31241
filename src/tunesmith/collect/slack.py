"""A Slack export (zip) to questions and answers: threads whose first message asks, and the best reply to each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from typing import Any

from tunesmith.collect.record import Record, shown
from tunesmith.collect.unpack import Blob, Limits, chat_root, member, open_zip
from tunesmith.core.records import Reject

Reader = Callable[[Blob], Iterator[Record | Reject]]

PEOPLE = ("thread_broadcast", "file_share", "me_message")  # subtypes that a person wrote; all others are events
LISTS = (
    "users.json",
    "channels.json",
    "groups.json",
    "dms.json",
    "mpims.json",
    "integration_logs.json",
    "canvases.json",
)
THANKED = ("white_check_mark", "heavy_check_mark", "ballot_box_with_check", "check", "+1", "thumbsup")
MENTION = re.compile(r"<([@#!])([^>|]*)(?:\|([^>]*))?>")
LINK = re.compile(r"<((?:https?|mailto):[^>|]*)(?:\|([^>]*))?>")


@dataclass(frozen=True)
class Post:
    source: str
    line: int
    user: str
    text: str
    raw: str
    ts: str
    reactions: frozenset[str]


def read(blob: Blob, read_json: Reader) -> Iterator[Record | Reject]:
    """A record for each answered question; a reject for each post that is part of none, with its file and line."""
    with open_zip(blob) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    root = chat_root([info.filename for info in infos]) or ""
    opened = {info.filename.removeprefix(root): member(blob, info, Limits().allowed(blob.size)) for info in infos}
    names = dict(_names(read_json(opened["users.json"])))
    channels: dict[str, list[Blob]] = defaultdict(list)
    for path in sorted(opened):
        folder, _, file = path.rpartition("/")
        if folder and file.endswith(".json"):
            channels[folder].append(opened[path])
    for days in channels.values():
        yield from _channel(days, names, read_json)


def _names(users: Iterator[Record | Reject]) -> Iterator[tuple[str, str]]:
    """The id and the shown name of each user."""
    for user in users:
        if isinstance(user, Record) and isinstance(user.value.get("id"), str):
            profile = user.value.get("profile")
            profile = profile if isinstance(profile, dict) else {}
            found = (profile.get("display_name"), profile.get("real_name"), user.value.get("name"))
            yield user.value["id"], next((str(name) for name in found if name), user.value["id"])


def _channel(days: list[Blob], names: dict[str, str], read_json: Reader) -> Iterator[Record | Reject]:
    """Threads may run over many days, so a channel is read whole."""
    threads: dict[str, list[Post]] = defaultdict(list)
    for day in days:
        for item in read_json(day):
            if isinstance(item, Reject):
                yield Reject(day.name, item.line, item.reason, item.detail, item.raw)
                continue
            reason = _event(item.value)
            if reason:
                yield _reject(day.name, item.line, reason, "", item.raw)
                continue
            post = _post(day.name, item, names)
            threads[str(item.value.get("thread_ts") or post.ts)].append(post)
    for key, posts in threads.items():
        yield from _thread(sorted(posts, key=lambda post: (_seconds(post.ts), post.source, post.line)), key)


def _event(message: dict[str, Any]) -> str:
    """The reason for leaving out what no person wrote, or ''."""
    subtype = message.get("subtype")
    if message.get("bot_id") or subtype == "bot_message" or message.get("user") == "USLACKBOT":
        return "bot"
    if subtype not in (None, *PEOPLE) or message.get("type", "message") != "message":
        return "event"
    if not isinstance(message.get("user"), str) or not isinstance(message.get("ts"), str):
        return "message_shape"
    return "" if isinstance(message.get("text"), str) and message["text"].strip() else "empty"


def _post(source: str, item: Record, names: dict[str, str]) -> Post:
    value = item.value
    given = value.get("reactions")
    given = given if isinstance(given, list) else []
    reactions = frozenset(str(one.get("name", "")).split("::")[0] for one in given if isinstance(one, dict))
    return Post(source, item.line, value["user"], readable(value["text"], names), item.raw, value["ts"], reactions)


def readable(text: str, names: dict[str, str]) -> str:
    """Slack's markup as a person sees it: @name, #channel, links, and the characters that it escapes."""

    def mention(found: re.Match[str]) -> str:
        mark, key, label = found[1], found[2], found[3]
        said = label or (names.get(key, key) if mark == "@" else key)
        return f"{'@' if mark == '!' else mark}{said.lstrip('@#')}"

    text = LINK.sub(lambda link: f"{link[2]} ({link[1]})" if link[2] and link[2] not in link[1] else link[1], text)
    return unescape(MENTION.sub(mention, text)).strip()


def _seconds(ts: str) -> float:
    return float(ts) if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", ts) else 0.0


def _thread(posts: list[Post], key: str) -> Iterator[Record | Reject]:
    asker = posts[0].user
    count = next((at for at, post in enumerate(posts) if post.user != asker), len(posts))
    asked, rest = posts[:count], posts[count:]
    question = "\n".join(post.text for post in asked)
    replies = [run for run in _runs(rest) if run[0].user != asker]
    reason = "no_question" if "?" not in question else "" if replies else "no_reply"
    used = [*asked]
    if not reason:
        best = max(replies, key=lambda run: (_thanked(run), sum(len(post.text) for post in run)))
        used += best
        value = {"question": question, "answer": "\n".join(post.text for post in best)}
        first = posts[0]
        group = f"{first.source.rpartition('/')[0]}/{key}"
        yield Record(first.line, {**value, "meta": {"group": group}}, first.raw, first.source)
    for post in posts:
        if reason or post not in used:
            yield _reject(post.source, post.line, reason or "not_needed", "neither question nor answer", post.raw)


def _runs(posts: list[Post]) -> list[list[Post]]:
    """Posts by one person right after one another are one reply."""
    runs: list[list[Post]] = []
    for post in posts:
        if runs and runs[-1][0].user == post.user:
            runs[-1].append(post)
        else:
            runs.append([post])
    return runs


def _thanked(run: list[Post]) -> bool:
    return any(post.reactions & set(THANKED) for post in run)


def _reject(source: str, line: int, reason: str, what: str, raw: str) -> Reject:
    detail = {"no_question": "nothing is asked", "no_reply": "nobody else wrote", "bot": "written by a program"}
    return Reject(source, line, reason, f"{source}:{line}: {detail.get(reason, what or reason)}", shown(raw))
