"""What is said of all rows together: corpus BLEU and chrF, perplexity, macro F1, the confusion matrix, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from tunesmith.evaluate.catalogue import meaning
from tunesmith.evaluate.measure import Likelihood, bits_per_byte, perplexity
from tunesmith.evaluate.score import Item
from tunesmith.metrics import corpus
from tunesmith.metrics.labels import confusion_counts, confusion_matrix, macro_f1
from tunesmith.metrics.ngrams import bleu, bleu_counts, chrf, chrf_counts
from tunesmith.metrics.stats import nearest_rank, verdict

Likelihoods = Mapping[str, Sequence[Likelihood | None]]  # arm -> one a row


def values(items: Sequence[Item], likelihoods: Likelihoods, labels: Sequence[str], seed: int) -> dict[str, Any]:
    """What report.json adds: "corpus" (name -> cell), and where they were measured "confusion" and "latency_ms"."""
    names = items[0].scores.keys()
    out: dict[str, Any] = {"corpus": {}}
    for name, (count, score) in {"bleu": (bleu_counts, bleu), "chrf": (chrf_counts, chrf)}.items():
        if name in names:
            out["corpus"][name] = _of_texts(name, items, count, score, seed)
    if "label" in names:
        count = partial(confusion_counts, labels=labels)
        labelled = [item for item in items if item.scores["label"]["base"] is not None]
        out["corpus"] |= {"macro_f1": _of_texts("macro_f1", labelled, count, macro_f1, seed)} if labelled else {}
        out["confusion"] = {"labels": list(labels), **{arm: _matrix(labelled, arm, count) for arm in ("base", "tuned")}}
    for name, score in {"perplexity": perplexity, "bpb": bits_per_byte}.items():
        if name in names and any(likelihoods["base"]):
            out["corpus"][name] = _of_models(name, items, likelihoods, score, seed)
    if "latency_ms" in names:
        out["latency_ms"] = {arm: _percentiles(items, arm) for arm in ("base", "tuned")}
    return out


def _of_texts(name: str, items: Sequence[Item], count: Any, score: corpus.Score, seed: int) -> dict[str, Any]:
    counts = {arm: [count(item.texts[arm], item.reference) for item in items] for arm in items[0].texts}
    sums = {arm: score([sum(column) for column in zip(*counts[arm], strict=True)]) for arm in items[0].arms}
    groups = [item.group for item in items]
    return _cell(name, corpus.compare(counts["base"], counts["tuned"], groups, score, seed)) | {"arms": sums}


def _of_models(
    name: str, items: Sequence[Item], likelihoods: Likelihoods, score: corpus.Score, seed: int
) -> dict[str, Any]:
    both = zip(likelihoods["base"], likelihoods["tuned"], [item.group for item in items], strict=True)
    known = [(base.counts, tuned.counts, group) for base, tuned, group in both if base and tuned]
    base, tuned, groups = zip(*known, strict=True)
    return _cell(name, corpus.compare(base, tuned, groups, score, seed)) | {"arms": {}}


def _cell(name: str, found: corpus.Compared) -> dict[str, Any]:
    arms = (("base", found.base), ("tuned", found.tuned))
    own = {f"{arm}_{end}": value for arm, mean in arms for end, value in (("low", mean.low), ("high", mean.high))}
    higher = meaning(name).higher_is_better
    return asdict(found.difference) | own | {"verdict": verdict(found.difference, bool(higher))}


def _matrix(items: Sequence[Item], arm: str, count: Any) -> list[list[int]]:
    """[label of the reference][label given, or last: none]."""
    sums = [sum(column) for column in zip(*(count(i.texts[arm], i.reference) for i in items), strict=True)]
    matrix: list[list[int]] = confusion_matrix(sums).tolist() if sums else []
    return matrix


def _percentiles(items: Sequence[Item], arm: str) -> dict[str, float]:
    took = [value for item in items if (value := item.scores["latency_ms"][arm]) is not None]
    return {f"p{share}": nearest_rank(took, share / 100) for share in (50, 95)}
