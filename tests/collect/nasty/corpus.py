"""Small files as people have them, damaged or unusual, and what must become of each. Verdicts are decided by hand.

Read with runpy by the tests and by the fuzzer; nothing here imports Tunesmith.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """`shape`, `rows` (in), `kept` and `rejected`, or the words with which the error must begin."""

    name: str
    data: bytes
    shape: str = ""
    rows: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    error: str = ""
    pairs: tuple[tuple[str, str], ...] = ()  # (question, answer) of the kept rows, where that says more


def ok(name: str, data: str | bytes, shape: str, kept: int, **rejected: int) -> Case:
    raw = data.encode() if isinstance(data, str) else data
    return Case(name, raw, shape, kept + sum(rejected.values()), kept, rejected)


def told(name: str, data: str | bytes, *pairs: tuple[str, str], **rejected: int) -> Case:
    raw = data.encode() if isinstance(data, str) else data
    return Case(name, raw, "pair", len(pairs) + sum(rejected.values()), len(pairs), rejected, pairs=pairs)


def stop(name: str, data: str | bytes, error: str) -> Case:
    return Case(name, data.encode() if isinstance(data, str) else data, error=error)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def zipped(members: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


QA = {"question": "Where?", "answer": "There."}
Q2 = {"question": "When?", "answer": "Now."}
TWO = lines(QA, Q2)
TABLE = "question,answer\nWhere?,There.\nWhen?,Now.\n"
BOTH = (("Where?", "There."), ("When?", "Now."))
ASK, SAY = {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}

JSON = [
    told("jsonl", TWO, *BOTH),
    told("array", json.dumps([QA, Q2]), *BOTH),
    told("array_pretty", json.dumps([QA, Q2], indent=4), *BOTH),
    told("object_with_one_list", json.dumps({"version": 1, "data": [QA, Q2]}), *BOTH),
    told("object_of_rows_by_name", json.dumps({"a": QA, "b": Q2}, indent=1), *BOTH),
    told("concatenated_pretty", json.dumps(QA, indent=2) + "\n" + json.dumps(Q2, indent=2), *BOTH),
    told("concatenated_tight", json.dumps(QA) + json.dumps(Q2), *BOTH),
    told("trailing_comma_in_array", f"[{json.dumps(QA)},\n{json.dumps(Q2)},\n]", *BOTH),
    told("lines_with_trailing_commas", f"{json.dumps(QA)},\n{json.dumps(Q2)},\n", *BOTH),
    told("half_last_line", TWO + '{"question": "Wh', *BOTH, malformed=1),
    told("garbage_first_line", "garbage\n" + TWO, *BOTH, malformed=1),
    told("log_line_in_the_middle", lines(QA) + "WARNING: retrying\n" + lines(Q2), *BOTH, malformed=1),
    told("array_cut_off", json.dumps([QA, Q2], indent=1)[:-30], BOTH[0], malformed=1),
    told(
        "array_broken_element",
        f'[\n {json.dumps(QA)},\n {{"question": oops}},\n {json.dumps(Q2)}\n]',
        *BOTH,
        malformed=1,
    ),
    told("blank_lines_and_spaces", f"\n\n  {json.dumps(QA)}  \n\n\t\n{json.dumps(Q2)}\n\n", *BOTH),
    told("no_final_newline", TWO.rstrip(), *BOTH),
    told("null_answer", TWO + lines({"question": "Who?", "answer": None}), *BOTH, null=1),
    told("nan_answer", TWO + '{"question": "Who?", "answer": NaN}\n', *BOTH, null=1),
    told("numbers_and_strings_mixed", TWO + lines({"question": 7, "answer": "seven"}), *BOTH, ("7", "seven")),
    told("rows_that_are_no_objects", TWO + '[1, 2]\n"text"\n3\n', *BOTH, not_an_object=3),
    told("mixed_shapes", TWO + lines(QA, {"text": "raw"}, {"messages": [ASK, SAY]}), *BOTH, BOTH[0], shape=2),
    told(
        "line_separator_in_text",
        json.dumps({"question": "a\u2028b", "answer": "c\x85d"}, ensure_ascii=False) + "\n",
        ("a\u2028b", "c\x85d"),
    ),
    told("half_emoji", TWO + '{"question": "cut \\ud83d", "answer": "x"}\n', *BOTH, bad_characters=1),
    told("nested_too_deep", TWO + '{"question": ' + "[" * 100_000 + "\n", *BOTH, malformed=1),
    told("number_too_long", TWO + '{"question": ' + "9" * 5000 + ', "answer": "x"}\n', *BOTH, malformed=1),
    told(
        "same_key_twice", TWO + '{"question": "no", "question": "Where?", "answer": "There."}\n', *BOTH, repeated_key=1
    ),
    told("array_with_same_key_twice", f'[{{"answer": 1, "answer": 2}}, {json.dumps(QA)}]', BOTH[0], repeated_key=1),
    told("infinite_answer", TWO + '{"question": "Who?", "answer": 1e999}\n', *BOTH, null=1),
    told(
        "squad",
        json.dumps(
            {
                "data": [
                    {
                        "title": "T",
                        "paragraphs": [
                            {
                                "context": "C",
                                "qas": [
                                    {
                                        "question": "Where?",
                                        "answers": [{"text": "There.", "answer_start": 0}],
                                        "id": "1",
                                    },
                                    {"question": "When?", "answers": [], "id": "2", "is_impossible": True},
                                    {"question": "Who?", "answers": [{"text": "A"}, {"text": "B"}], "id": "3"},
                                ],
                            }
                        ],
                    }
                ]
            }
        ),
        ("Where?\n\nC", "There."),
        no_answer=1,
        answers=1,
    ),
    stop(
        "python_dicts",
        "{'question': 'Where?', 'answer': 'There.'}\n" * 3,
        "no row is left: 3 of 3 are rejected for 'malformed'",
    ),
    stop("empty_array", "[]", "there are no rows"),
    stop("empty_object", "{}", "which columns hold prompt and answer?"),
    stop("array_of_texts", '["a", "b"]', "no row is left: 2 of 2 are rejected for 'not_an_object'"),
    stop("two_shapes_half_and_half", lines(QA, {"text": "raw"}), "which columns hold prompt and answer?"),
    stop(
        "kto",
        lines({"prompt": "Q", "completion": "A", "label": True}),
        "no row is left: 1 of 1 are rejected for 'label'",
    ),
    stop("tokenized", lines({"input_ids": [1], "labels": [1]}), "no row is left: 1 of 1 are rejected for 'tokenized'"),
    stop("scorecard", lines({"id": 1, "n": 2}), "which columns hold prompt and answer?"),
]
CHATS = [
    ok("messages", lines({"messages": [ASK, SAY]}), "messages", 1),
    ok(
        "sharegpt_bing",
        lines({"conversations": [{"from": "human", "value": "a"}, {"from": "bing", "value": "b"}]}),
        "messages",
        1,
    ),
    ok("chat_as_a_string", lines({"messages": json.dumps([ASK, SAY])}), "messages", 1),
    ok("chat_without_answer", lines({"messages": [ASK, SAY]}, {"messages": [ASK]}), "messages", 1, no_answer=1),
    ok(
        "chat_with_tools",
        lines({"messages": [ASK, SAY]}, {"messages": [ASK, {"role": "tool", "content": "1"}, SAY]}),
        "messages",
        1,
        tools=1,
    ),
    ok("chat_twice_user", lines({"messages": [ASK, SAY]}, {"messages": [ASK, ASK, SAY]}), "messages", 1, role_order=1),
    ok("preference", lines({"prompt": "Q", "chosen": "A", "rejected": "B"}), "preference", 1),
]
TABLES = [
    told("csv", TABLE, *BOTH),
    told("semicolons", TABLE.replace(",", ";"), *BOTH),
    told("tabs", TABLE.replace(",", "\t"), *BOTH),
    told("pipes", TABLE.replace(",", "|"), *BOTH),
    told(
        "csv_quoted_newlines",
        'question,answer\n"Where,\nnow?","There,\n\nsaid ""he"""\nWhen?,Now.\n',
        ("Where,\nnow?", 'There,\n\nsaid "he"'),
        BOTH[1],
    ),
    told(
        "csv_open_quote",
        "question,answer\n" + '"a, b","c"\n' * 5 + '"Who?,They.\nWhy?,So.\n',
        *[("a, b", "c")] * 5,
        ("Why?", "So."),
        malformed=1,
    ),
    told(
        "csv_short_and_long_rows",
        TABLE + "Who?\nWho?,They,all\nWhy?,So.,,\n" + TABLE[16:] * 2,
        *(*BOTH, ("Why?", "So."), *BOTH, *BOTH),
        column_count=2,
    ),
    told("csv_long_field", f"question,answer\nWhere?,{'x' * 200_000}\n", ("Where?", "x" * 200_000)),
    told("csv_capital_header", TABLE.replace("question,answer", "Question, ANSWER "), *BOTH),
    told("csv_formula", "question,answer\nWhere?,=1+2\n", ("Where?", "=1+2")),
    told("csv_mac_line_ends", TABLE.replace("\n", "\r"), *BOTH),
    told("csv_blank_rows", TABLE.replace("\n", "\n\n"), *BOTH),
    ok("csv_lone_text_column", "text\nOne, two.\nThree.\n", "text", 2),
    stop("csv_header_only", "question,answer\n", "a table with a header and no rows"),
    stop("csv_two_columns_of_one_name", "q,q\n1,2\n", "two columns are called 'q'"),
    stop("csv_classes", "text,label\nLovely day,good\nAwful day,bad\n", "which columns hold prompt and answer?"),
    stop(
        "csv_choices", "question,choice0,choice1,answer\nQ,a,b,0\n", "no row is left: 1 of 1 are rejected for 'choices'"
    ),
    told(
        "tickets_resolved",
        "Ticket ID,Ticket Subject,Ticket Description,Resolution\n1,Login,It fails.,Reset it.\n",
        ("Login\n\nIt fails.", "Reset it."),
    ),
    ok(
        "tickets_a_message_a_row",
        "ticket_id,sender,message\n1,customer,Help?\n1,agent,Yes.\n2,customer,Hm?\n1,customer,Thanks\n",
        "tickets",
        1,
        no_reply=1,
        not_needed=1,
    ),
]
ENCODINGS = [
    told("utf8_bom", b"\xef\xbb\xbf" + TWO.encode(), *BOTH),
    told("utf16", TABLE.encode("utf-16"), *BOTH),
    told("utf16_without_mark", TABLE.encode("utf-16-be"), *BOTH),
    told("utf32", TWO.encode("utf-32"), *BOTH),
    told("cp1252", "question,answer\nWhere?,Caf\xe9 \x93so\x94\n".encode("latin-1"), ("Where?", "Café “so”")),
    told(
        "damaged_utf8",
        "question,answer\nÖl?,Jä.\nWas?,@\n".encode().replace(b"@", b"\xff"),
        ("Öl?", "Jä."),
        bad_characters=1,
    ),
    told("nul_in_text", '{"question": "a\\u0000b", "answer": "c"}\n', ("a\0b", "c")),
    told("crlf", TABLE.replace("\n", "\r\n"), *BOTH),
    stop("empty", b"", "the file is empty"),
    stop("only_blanks", b"\xef\xbb\xbf \n\t\r\n", "the file is empty"),
]
ARCHIVES = [
    told("gzip", gzip.compress(TWO.encode(), mtime=0), *BOTH),
    told(
        "gzip_of_two_parts",
        gzip.compress(lines(QA).encode(), mtime=0) + gzip.compress(lines(Q2).encode(), mtime=0),
        *BOTH,
    ),
    told("bzip2", bz2.compress(TWO.encode()), *BOTH),
    told("xz", lzma.compress(TWO.encode()), *BOTH),
    told("zip_of_one", zipped({"faq.csv": TABLE}), *BOTH),
    told(
        "zip_of_two_and_junk",
        zipped({"a.jsonl": lines(QA), "b/c.csv": TABLE, "__MACOSX/._a": b"\0", ".DS_Store": b"\0"}),
        BOTH[0],
        *BOTH,
    ),
    told("gzip_in_zip", zipped({"a.jsonl.gz": gzip.compress(TWO.encode(), mtime=0)}), *BOTH),
    told("zip_with_a_readme", zipped({"README.md": "# Data\n\nIt is good.\n", "faq.csv": TABLE}), *BOTH),
    stop("gzip_cut_off", gzip.compress(TWO.encode(), mtime=0)[:-12], "the archive is damaged"),
    stop("gzip_wrong_sum", gzip.compress(TWO.encode(), mtime=0)[:-8] + b"\0" * 8, "the archive is damaged"),
    stop(
        "gzip_five_times",
        gzip.compress(gzip.compress(gzip.compress(gzip.compress(TWO.encode())))),
        "not unpacked: more than 3 layers",
    ),
    stop("gzip_bomb", gzip.compress(b"[" * (65 << 20), 9, mtime=0), "not unpacked: it unpacks to far more"),
    stop("zip_climbs_out", zipped({"../../etc/faq.csv": TABLE}), "not unpacked: the member"),
    stop("zip_absolute", zipped({"/etc/faq.csv": TABLE}), "not unpacked: the member"),
    stop("zip_in_zip", zipped({"inner.zip": zipped({"faq.csv": TABLE})}), "not unpacked: an archive inside an archive"),
    stop("zip_empty", zipped({}), "there are no files in the archive"),
    stop("zip_cut_off", zipped({"faq.csv": TABLE})[:-20], "the archive is damaged"),
    stop("workbook", zipped({"[Content_Types].xml": "<x/>", "xl/workbook.xml": "<x/>"}), "this is an Office file"),
]
PAGE = "<!DOCTYPE html><html><head><title>T?</title></head><body>{}</body></html>"
TEXTS = [
    told("markdown_faq", "# FAQ\n\n## Where?\nThere.\n\n## When?\nNow.\n", *BOTH),
    told(
        "markdown_unanswered",
        "# FAQ\n\n## Where?\n\n## When?\nNow.\n\n## Who?\nThey.\n\n## News\nNone.\n",
        BOTH[1],
        ("Who?", "They."),
        no_answer=1,
        no_question=1,
    ),
    told("q_and_a", "Q: Where?\nA: There.\n\nQ: When?\nA: Now.\n", *BOTH),
    told("bold_questions", "**Where?**\nThere.\n\n**When?**\n\nNow.\n", *BOTH),
    told(
        "details",
        "<details><summary>Where?</summary>\nThere.\n</details>\n<details>\n<summary>When?</summary>\nNow.\n</details>\n",
        *BOTH,
    ),
    told("html_dl", PAGE.format("<dl><dt>Where?</dt><dd>There.</dd><dt>When?</dt><dd><p>Now.</p></dd></dl>"), *BOTH),
    told(
        "html_json_ld",
        PAGE.format(
            '<script type="application/ld+json">'
            + json.dumps(
                {
                    "@graph": [
                        {
                            "@type": "FAQPage",
                            "mainEntity": [
                                {
                                    "@type": "Question",
                                    "name": q,
                                    "acceptedAnswer": {"@type": "Answer", "text": f"<p>{a}</p>"},
                                }
                                for q, a in BOTH
                            ],
                        }
                    ]
                }
            )
            + "</script>"
        ),
        *BOTH,
    ),
    stop("html_error_page_as_jsonl", PAGE.format("<h1>404 Not Found</h1>"), "this is a web page (HTML)"),
    stop("lfs_pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "this is a Git LFS pointer"),
    stop("xml", "<?xml version='1.0'?><rows/>", "this is XML"),
    stop("pdf", b"%PDF-1.7 x", "this is a PDF"),
    stop("prose_of_two_lines", "Just a line of prose.\nAnd another one, with a comma.\n", "this is plain text"),
    stop("pairs_of_words", "teh the 1\nwrod word 2\n", "this is plain text"),
    ok("prose", "It was night.\nNobody slept.\n\nThen came the day.\n", "text", 1),
    ok("long_lines", f"{'a b ' * 200}.\n{'c d ' * 200}.\n", "text", 2),
    ok("form_feeds", "One.\n\fTwo.\n\f\n", "text", 2),
    told(
        "mbox",
        "From a@b Mon Jan  1 00:00:00 2024\nFrom: Ann <a@b>\nSubject: Help\nMessage-ID: <1@b>\n\nWhere?\n\n"
        "From c@d Mon Jan  1 00:00:00 2024\nFrom: Bob <c@d>\nSubject: Re: Help\nIn-Reply-To: <1@b>\n\n"
        "There.\n\nOn Monday, Ann wrote:\n> Where?\n-- \nBob\n",
        ("Help\n\nWhere?", "There."),
    ),
    told(
        "slack",
        zipped(
            {
                "users.json": "[]",
                "channels.json": "[]",
                "general/2024-01-01.json": json.dumps(
                    [
                        {"type": "message", "user": "U1", "text": "Where?", "ts": "1.0", "thread_ts": "1.0"},
                        {"type": "message", "user": "U2", "text": "There.", "ts": "2.0", "thread_ts": "1.0"},
                        {"type": "message", "subtype": "channel_join", "user": "U2", "text": "joined", "ts": "3.0"},
                    ]
                ),
            }
        ),
        BOTH[0],
        event=1,
    ),
]
CASES = [*JSON, *CHATS, *TABLES, *ENCODINGS, *ARCHIVES, *TEXTS]
