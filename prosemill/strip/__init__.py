"""From pages to text worth learning from: decoded, main text only, cleaned, filtered, without personal data."""

from prosemill.strip.document import StrippedPage, strip_html
from prosemill.strip.shard import strip_shard
from prosemill.strip.stage import merge_shards, shards_to_strip

__all__ = ["StrippedPage", "merge_shards", "shards_to_strip", "strip_html", "strip_shard"]
