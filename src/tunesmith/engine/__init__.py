"""The engine: one way to turn a model into text and log-probabilities. Importing this package imports no torch."""
