import io
import json
import zipfile
from typing import Any

from tunesmith.collect.readers import read
from tunesmith.collect.record import Record
from tunesmith.collect.slack import readable
from tunesmith.collect.sniff import sniff
from tunesmith.collect.unpack import memory, unpack
from tunesmith.core.records import Reject

USERS = [{"id": "U1", "name": "ann", "profile": {"display_name": "Ann"}}, {"id": "U2", "name": "bob"}]


def export(*days: list[dict[str, Any]], root: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{root}users.json", json.dumps(USERS))
        archive.writestr(f"{root}channels.json", json.dumps([{"id": "C1", "name": "help"}]))
        for number, posts in enumerate(days, 1):
            archive.writestr(f"{root}help/2024-01-0{number}.json", json.dumps(posts, indent=1))
    return out.getvalue()


def post(user: str, text: str, ts: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "user": user, "text": text, "ts": ts, **more}


def found(*days: list[dict[str, Any]], root: str = "") -> tuple[list[dict[str, Any]], list[tuple[str, int, str]]]:
    (blob,) = unpack(memory(export(*days, root=root), "z"))
    file = sniff(blob)
    assert file.container == "slack"
    items = list(read(file))
    rejects = [(item.source, item.line, item.reason) for item in items if isinstance(item, Reject)]
    return [item.value for item in items if isinstance(item, Record)], rejects


IN = {"thread_ts": "1.0"}
ASK = post("U1", "Where, <@U2>?", "1.0", **IN)


def test_a_thread_is_a_question_and_its_longest_reply_and_may_run_over_days() -> None:
    made, left = found([ASK, post("U2", "There.", "2.0", **IN)], [post("U3", "No, over there.", "9.0", **IN)])
    assert made == [{"question": "Where, @bob?", "answer": "No, over there.", "meta": {"group": "z/help/1.0"}}]
    assert left == [("z/help/2024-01-01.json", 9, "not_needed")]


def test_a_reply_that_was_ticked_off_wins_over_a_longer_one() -> None:
    ticked = post("U2", "There.", "2.0", **IN, reactions=[{"name": "+1::skin-tone-2", "users": ["U1"]}])
    made, _ = found([ASK, ticked, post("U3", "No, over there.", "9.0", **IN)])
    assert made[0]["answer"] == "There."


def test_posts_right_after_one_another_by_one_person_are_one() -> None:
    posts = [
        ASK,
        post("U1", "I looked.", "1.5", **IN),
        post("U2", "There.", "2.0", **IN),
        post("U2", "Or here.", "3.0", **IN),
    ]
    made, left = found(posts)
    assert (made[0]["question"], made[0]["answer"]) == ("Where, @bob?\nI looked.", "There.\nOr here.")
    assert left == []


def test_each_post_that_is_part_of_no_row_is_rejected_with_its_reason() -> None:
    made, left = found(
        [
            post("U1", "Hello all.", "1.0"),
            post("U1", "Anybody?", "2.0"),
            post("U1", "Still?", "3.0", thread_ts="3.0"),
            post("U1", "Never mind.", "4.0", thread_ts="3.0"),
            {"type": "message", "subtype": "channel_join", "user": "U2", "text": "joined", "ts": "5.0"},
            {"type": "message", "subtype": "bot_message", "bot_id": "B", "text": "Deployed?", "ts": "6.0"},
            post("USLACKBOT", "Reminder?", "7.0"),
            {"type": "message", "text": "nobody", "ts": "8.0"},
        ]
    )
    assert made == []
    reasons = sorted(reason for _, _, reason in left)
    assert reasons == ["bot", "bot", "event", "message_shape", "no_question", "no_reply", "no_reply", "no_reply"]


def test_an_export_in_a_folder_is_read_too() -> None:
    made, _ = found([ASK, post("U2", "There.", "2.0", **IN)], root="my export/")
    assert made[0]["meta"] == {"group": "z/my export/help/1.0"}


def test_markup_becomes_what_a_person_sees() -> None:
    names = {"U1": "Ann"}
    text = "<@U1> <@U9> <#C1|help> <!here> <https://x.y|the site> <https://x.y> <mailto:a@b|a@b> a &lt; b &amp; c"
    assert readable(text, names) == "@Ann @U9 #help @here the site (https://x.y) https://x.y mailto:a@b a < b & c"
