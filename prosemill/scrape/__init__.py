"""scrape: reads a source and keeps its pages unchanged, with a ledger of every URL and every decision."""

from prosemill.scrape.stage import fingerprint, scrape_source

__all__ = ["fingerprint", "scrape_source"]
