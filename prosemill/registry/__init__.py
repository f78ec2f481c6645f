"""Versions of models and their aliases, model card, metrics, export, reproduction."""
