"""Is there enough: rows that ask something new, words or tokens to learn, optimizer steps, hosted APIs' minimums."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.records import Row
from tunesmith.prepare.corpus import Corpus, answers
from tunesmith.prepare.finding import Axis, Part, ramp
from tunesmith.text.batch import EPOCHS, STEPS
from tunesmith.text.similar import UnionFind
from tunesmith.text.tokenizer import Tokenizer

ENOUGH = 1000  # distinct rows: the rule of thumb, and LIMA (Zhou et al. 2023)
NEAR = 0.7  # Jaccard from which two questions are one to learn from
BLOCK = 10_000  # rows whose tokens are held at a time
MINIMUMS = {"OpenAI": 10, "OCI": 32, "watsonx": 50, "Bedrock": 100}  # rows a fine-tuning API takes, 2026


def amount(corpus: Corpus, train_rows: int, batch_size: int, tokens: int | None = None) -> Axis:
    """`train_rows` of the rows are trained on. `tokens`: of all answers, where the base's tokenizer is at hand."""
    rows = len(corpus.rows)
    effective = effective_rows(corpus)
    answers = corpus.answered if len(corpus.answered.ids) else corpus.asked
    unit, learnt = ("tokens", tokens) if tokens is not None else ("words", len(answers.ids))
    epoch = -(-train_rows // batch_size)
    met = {name: rows >= least for name, least in MINIMUMS.items()}
    told = f"{rows} rows in {effective} clusters of questions alike at {max(NEAR, corpus.near_from):g}"
    parts = (
        Part("effective rows", 3, ramp(effective, 0, ENOUGH), f"{told}; {ENOUGH} are the rule of thumb"),
        Part("optimizer steps", 1, ramp(epoch * EPOCHS, 0, STEPS), f"{epoch} an epoch, {EPOCHS} epochs; {STEPS} do"),
        Part("hosted minimums", 1, sum(met.values()) / len(met), f"{sum(met.values())} of {len(met)} met"),
    )
    facts = {
        "rows": rows,
        "effective_rows": effective,
        f"answer_{unit}": learnt,
        "batch_size": batch_size,
        "steps_an_epoch": epoch,
        "minimums_met": met,
    }
    lines = [f"{learnt} {unit} of answers to learn; {epoch} optimizer steps an epoch at a batch of {batch_size}"]
    if tokens is None:
        lines.append("in tokens: NOT RUN, the tokenizer of the base is not at hand")
    lines += [f"below the minimum of {name}: {MINIMUMS[name]} rows" for name, enough in met.items() if not enough]
    if effective < ENOUGH:
        lines.append(f"it would take {ENOUGH - effective} more rows with new questions to reach {ENOUGH}")
    if epoch * EPOCHS < STEPS:
        wanted = -(-STEPS // epoch)
        lines.append(f"{STEPS} steps are {wanted} epochs here, or a batch_size below {batch_size} under [train]")
    return Axis("amount", parts, facts, tuple(lines))


def answer_tokens(tokenizer: Tokenizer, rows: Sequence[Row]) -> int:
    """Tokens of all answers, or of raw texts, each with its stop token."""
    total = 0
    for start in range(0, len(rows), BLOCK):
        texts = [text for row in rows[start : start + BLOCK] for text in answers(row) or [row.text]]
        total += sum(len(ids) + 1 for ids in tokenizer.encode_many(texts))
    return total


def effective_rows(corpus: Corpus) -> int:
    """Clusters of rows that ask nearly the same."""
    order = {number: k for k, number in enumerate(dict.fromkeys(corpus.numbers))}
    sets = UnionFind(len(order))
    for left, right, score in corpus.near:
        if score >= NEAR and left in order and right in order:
            sets.union(order[left], order[right])
    return sum(sets.find(k) == k for k in range(len(order)))
