"""The config of `prepare`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tunesmith.core.config import Config

SPLITTING = ("seed", "valid_fraction", "test_fraction", "leak_threshold")  # a new value of these asks for a new split


class PrepareConfig(Config):
    """How rows become a set."""

    valid_fraction: float = Field(default=0.1, ge=0, lt=1)
    """share of the groups that training is steered by"""
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    """share of the groups that are only measured on"""
    near_duplicate_threshold: float = Field(default=0.9, gt=0, le=1)
    """of two rows with the same answer and questions this alike (Jaccard of 4-grams) one is dropped"""
    leak_threshold: float = Field(default=0.7, gt=0, le=1)
    """questions this alike (Jaccard of 4-grams) stay in one split"""
    unwrap: Literal["auto", "never"] = "auto"
    """auto takes off prompt templates that are baked into at least 95 % of a file's rows; never leaves them"""
    reject: list[str] = Field(default_factory=list)
    """findings of report.md whose rows are left out, as in ["echo", "refusal"]; none by itself"""
    benchmarks: list[str] = Field(default_factory=list)
    """files of ARC, HellaSwag, MMLU or TruthfulQA whose questions are looked for in the rows"""
    difficulty: str | None = None
    """a model that says how likely each answer is: "base", a run, a directory or a hub id; None for none"""
    judge: int = Field(default=0, ge=0)
    """so many rows are shown to the model under [generate], which scores their answers from 1 to 5"""
    seed: int = 0
    """salt of the split: another number, another split"""

    @model_validator(mode="after")
    def _something_to_train_on(self) -> PrepareConfig:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction + test_fraction must be below 1: the rest is trained on")
        return self

    @property
    def alike(self) -> float:
        """The Jaccard from which pairs of questions are looked for."""
        return min(self.leak_threshold, self.near_duplicate_threshold)
