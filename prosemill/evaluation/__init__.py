"""Evaluation: how well models predict text that none of them saw, document by document."""
