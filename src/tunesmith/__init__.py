"""Tunesmith: your own examples to a better small language model, with numbers that say whether it is better."""

__version__ = "0.1.0"
