"""The settings of a comparison."""

from __future__ import annotations

from pydantic import Field

from tunesmith.engine.endpoint import EndpointConfig


class CompareConfig(EndpointConfig):
    """Which arms are compared, by what, and at what price. An endpoint is an arm where base_url and model are set."""

    limit: int | None = Field(default=None, ge=1)
    """answer only so many test rows, the same ones each time; None for all"""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """where an answer is cut; None for 1.5 x the longest training answers (tokens), at most 512"""
    metric: str | None = None
    """what the verdict goes by; None for fields or label where every reference has those, else f1"""
    documents: tuple[str, ...] = ()
    """text files to retrieve passages from; empty to retrieve training rows"""
    shots: tuple[int, ...] = Field(default=(1, 4), min_length=1)
    """how many examples the search for the best few-shot prompt tries"""
    passages: tuple[int, ...] = Field(default=(1, 3), min_length=1)
    """how many passages the search for the best retrieval prompt tries"""
    search_rows: int = Field(default=32, ge=0)
    """rows of the valid split, never of the test, that each prompt of a search answers; 0 to take the first prompt"""
    latency_rows: int = Field(default=20, ge=1)
    """requests that are asked alone, for latency, after one that warms up"""
    price_per_hour: float | None = Field(default=None, ge=0)
    """what an hour of this machine costs, in the currency of prices; None for 0.10, about a small rented machine"""
    seed: int = 0
    """of the random examples and of the intervals"""
