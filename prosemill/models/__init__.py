"""Bases, loading, generation, and the baselines."""
