"""From pages to text worth learning from: decoded, main text only, cleaned, judged, without personal data."""

from prosemill.strip.document import Stripped, strip_html
from prosemill.strip.merge import merge_shards, shards_to_strip
from prosemill.strip.shard import STAGE_VERSION, strip_shard

__all__ = ["STAGE_VERSION", "Stripped", "merge_shards", "shards_to_strip", "strip_html", "strip_shard"]
