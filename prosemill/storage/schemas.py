"""The records that stages exchange: their columns."""

from __future__ import annotations

import pyarrow as pa

# One row per URL per scrape, the skipped ones too.
LEDGER = pa.schema(
    [
        ("url", pa.string()),  # as asked for, after canonical form
        ("source", pa.string()),
        ("state", pa.string()),  # fetched | unchanged | skipped | failed | gone
        ("reason", pa.string()),  # why it is not `fetched`; "" for fetched and unchanged
        ("http_status", pa.int32()),  # 0 when nothing was asked
        ("fetched_at", pa.string()),  # ISO 8601, UTC; of the body that `warc` holds
        ("etag", pa.string()),
        ("last_modified", pa.string()),
        ("content_type", pa.string()),
        ("content_sha256", pa.string()),  # of the decoded (unzipped) body
        ("size_bytes", pa.int64()),
        ("depth", pa.int32()),
        ("referrer", pa.string()),
        ("redirected_to", pa.string()),
        ("opt_out", pa.string()),  # what was read: "" or for example "meta:noai", "robots:GPTBot", "tdmrep"
        ("warc", pa.string()),  # "<snapshot id>/<file>" that holds the body, of this or an earlier scrape
        ("warc_offset", pa.int64()),
        ("warc_length", pa.int64()),
    ]
)
LIVE_STATES = ("fetched", "unchanged")  # rows whose body goes on to strip

DOCUMENT = pa.schema(
    [
        ("id", pa.string()),  # document_id(url, text)
        ("url", pa.string()),
        ("source", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("date", pa.string()),  # ISO date that the page states, "" when it states none
        ("language", pa.string()),  # ISO 639-1, "" when too short to tell
        ("charset", pa.string()),
        ("fetched_at", pa.string()),
        ("content_sha256", pa.string()),
        ("size_bytes", pa.int64()),  # of `text` in UTF-8
        ("scrubbed", pa.int32()),  # how many e-mail addresses, numbers … were replaced
    ]
)

DROPPED = pa.schema(  # strip: pages that gave no document
    [
        ("url", pa.string()),
        ("source", pa.string()),
        ("content_sha256", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)

REMOVED = pa.schema(  # dedup: documents that have a kept twin
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("keeper", pa.string()),
        ("keeper_url", pa.string()),
        ("similarity", pa.float64()),  # exact Jaccard of the shingle sets
        ("reason", pa.string()),  # exact | near
    ]
)

WITHDRAWN = pa.schema(  # dedup: keepers whose page was read once and opts out now
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("reason", pa.string()),  # the opt-out, as the ledger has it
        ("since", pa.string()),  # as_of of the run that found it
    ]
)

PAIR = pa.schema(
    [("a", pa.string()), ("b", pa.string()), ("similarity", pa.float64())]
)  # keepers, loose <= J < threshold

SPLIT = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("split", pa.string()),  # train | validation | test | excluded
        ("component", pa.string()),  # smallest document id of the loose component
        ("reason", pa.string()),  # "" or, for excluded, near_held_out | contains_held_out
        ("first_seen", pa.string()),  # as_of of the run that fixed it
    ]
)

CONTAINER = pa.schema(  # split: documents kept out of training because they hold a held-out one, whole or nearly
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("held_out", pa.string()),
        ("held_out_url", pa.string()),
        ("share", pa.float64()),  # of the held-out document's shingles
    ]
)

CHUNK_MAP = pa.schema(
    [
        ("chunk", pa.string()),  # "<snapshot id>/<file>#<row>"
        ("split", pa.string()),
        ("document", pa.string()),
        ("url", pa.string()),
        ("chunk_start", pa.int32()),  # first token of the piece, within the chunk
        ("document_start", pa.int32()),  # the same token, within the document
        ("num_tokens", pa.int32()),  # of this piece, the end-of-text included
    ]
)

SCORE = pa.schema(  # evaluate: one row per model and document
    [
        ("model", pa.string()),  # base | previous | champion | challenger
        ("model_id", pa.string()),
        ("document", pa.string()),
        ("part", pa.string()),  # test | validation | train | general; all but test are samples
        ("source", pa.string()),
        ("first_seen", pa.string()),  # as_of of the run that first met the document, "" for general text
        ("nats", pa.float64()),  # negative log-likelihood, summed over the scored tokens
        ("num_tokens", pa.int64()),  # scored tokens
        ("size_bytes", pa.int64()),  # of the text those tokens spell
    ]
)
