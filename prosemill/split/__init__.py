"""Splits, and what keeps held-out text out of training."""
