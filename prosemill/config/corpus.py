"""Settings of the stages that make the corpus: scrape, strip, dedup, split, chunk."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, model_validator

from prosemill.config.extensions import ByName, FilterSettings
from prosemill.config.section import Probability, Section, Share


class Scrape(Section):
    """How politely and how far."""

    user_agent: str = Field(
        default="prosemill",
        min_length=1,
        max_length=200,
        description="Product token that robots.txt is read for; add an address where you can be reached.",
    )
    delay_seconds: float = Field(
        default=1.0, ge=0, le=600, description="Pause between two requests to one host; robots' crawl-delay is a floor."
    )
    max_pages: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Stop a site or hub data set after this many pages; what lies on disk is read whole.",
    )
    max_depth: int = Field(default=10, ge=0, le=100, description="How many links away from a start URL.")
    max_minutes: float = Field(default=120, gt=0, le=10_080, description="Stop a source after this time.")
    max_page_megabytes: float = Field(
        default=10, gt=0, le=1000, description="A longer body is not kept; above 20 MB strip drops it, as too_large."
    )
    timeout_seconds: float = Field(default=30, gt=0, le=600, description="For one request.")
    obey_robots: bool = Field(default=True, description="Read robots.txt and keep to it (RFC 9309).")
    obey_opt_outs: bool = Field(
        default=True, description="Leave out pages whose owner opted out of AI use (robots, meta, headers, TDMRep)."
    )
    allow_private_addresses: bool = Field(
        default=False, description="Let this recipe read loopback and private addresses, for a site of your own."
    )
    follow_query_strings: bool = Field(default=False, description="Follow links that carry a ?query.")

    @property
    def max_page_bytes(self) -> int:
        return int(self.max_page_megabytes * (1 << 20))


class Strip(Section):
    """From pages to text worth learning from."""

    languages: list[str] = Field(
        default=[],
        description="Keep only these (ISO 639-1). Empty: the recipe's language. One entry '*': any language.",
    )
    min_words: int = Field(default=20, ge=0, le=100_000, description="A shorter document is dropped as thin.")
    max_repetition: Share = Field(
        default=0.5, description="Drop a document when more than this share of its lines repeat other lines of it."
    )
    max_symbol_share: Share = Field(
        default=0.4,
        description="Drop a document when more than this share of its characters is neither letter nor space.",
    )
    filters: Annotated[dict[str, SerializeAsAny[FilterSettings]], ByName(FilterSettings)] = Field(
        default={},
        exclude_if=operator.not_,  # a recipe without makes the snapshots that it always made
        description="Filters of your own, by name: [strip.filters.NAME] with their settings.",
    )
    keep_tables: bool = Field(default=True, description="Keep tables, one row a line.")
    keep_comments: bool = Field(default=False, description="Keep readers' comments.")
    scrub_email: bool = Field(default=True, description="Replace e-mail addresses by [e-mail].")
    scrub_phone: bool = Field(default=True, description="Replace telephone numbers by [phone].")
    scrub_ip: bool = Field(default=True, title="Scrub IP", description="Replace IP addresses by [ip].")
    scrub_id_numbers: bool = Field(default=True, description="Replace card, IBAN and national id numbers by [id].")
    quarantine_share: Share = Field(
        default=0.3,
        description="A source whose new pages give less than this share of the text a page gave the run before is "
        "not learned from until a person has looked: its site was rebuilt. 0: let everything through.",
    )
    max_dropped_share: Share = Field(
        default=0.9, description="Stop when more than this share of the pages gives no document: something is broken."
    )


class Dedup(Section):
    """Near-duplicates, by MinHash candidates and an exact check."""

    threshold: float = Field(
        default=0.8, ge=0.5, le=1.0, description="Jaccard similarity from which a document is a copy."
    )
    loose_threshold: float = Field(
        default=0.65, ge=0.3, le=1.0, description="Documents this similar always share a split, so that nothing leaks."
    )
    num_perm: Literal[64, 128, 256] = Field(default=128, description="Length of a MinHash signature.")
    shingle_words: int = Field(
        default=5, ge=1, le=20, description="Words (Chinese, Japanese, Korean, Thai …: characters) a shingle."
    )
    boilerplate_pages: int = Field(
        default=10,
        ge=2,
        le=10_000,
        description="A line on at least this many pages of a source is boilerplate and goes …",
    )
    boilerplate_share: Probability = Field(default=0.05, description="… if it is on at least this share of them.")

    @model_validator(mode="after")
    def _loose_is_looser(self) -> Dedup:
        if self.loose_threshold > self.threshold:
            raise ValueError(f"loose_threshold {self.loose_threshold} is above threshold {self.threshold}")
        return self


class Split(Section):
    """What is held out. A document's split is fixed when it is first seen."""

    test_share: Probability = Field(default=0.1, description="Held out for the gate.")
    validation_share: Probability = Field(default=0.05, description="Held out for early stopping.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Another seed holds out other documents.")

    @model_validator(mode="after")
    def _leaves_something(self) -> Split:
        if self.test_share + self.validation_share > 0.9:
            raise ValueError("test_share and validation_share leave less than a tenth to train on")
        return self


class Chunk(Section):
    """Training examples."""

    chunk_tokens: int = Field(
        default=1024, ge=32, le=131_072, description="Token ids a chunk; the base's context at most."
    )
