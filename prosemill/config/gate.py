"""Settings of the gate: when the challenger takes over."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import Field, SerializeAsAny

from prosemill.config.extensions import ByName, SliceSettings
from prosemill.config.section import Section, Share


class Gate(Section):
    """When the challenger takes over."""

    confidence: float = Field(
        default=0.95,
        ge=0.5,
        lt=1,
        description="Of the interval of the difference when its test pages are used for the first time; "
        "each time they are used again it takes more.",
    )
    margin: float = Field(
        default=0.005,
        ge=0,
        le=5,
        description="Bits per byte that the challenger must gain beyond, at that confidence; another seed alone makes "
        "some 0.002.",
    )
    max_old_loss: float = Field(
        default=0.02,
        ge=0,
        le=10,
        description="Bits per byte that the challenger may lose on test pages that the champion's corpus knew.",
    )
    max_general_loss: float = Field(
        default=0.5, ge=0, le=10, description="Bits per byte that it may lose on general text, against the champion."
    )
    max_copied: Share = Field(
        default=0.2,
        description="Share of 13-word runs in its continuations that may stand in the training text, beyond the share "
        "in the test pages themselves.",
    )
    max_verbatim_words: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="Longest run of words in its continuations that may stand in the training text, unless the test "
        "pages themselves have a longer one.",
    )
    max_repetition: Share = Field(
        default=0.5, description="Share of 4-word runs in a continuation that may have stood in it before."
    )
    slices: Annotated[dict[str, SerializeAsAny[SliceSettings]], ByName(SliceSettings)] = Field(
        default={},
        exclude_if=operator.not_,  # a recipe without makes the decisions that it always made
        description="Slices of your own, by name: [gate.slices.NAME] with their settings.",
    )
    resamples: int = Field(default=10_000, ge=100, le=1_000_000, description="Of the paired bootstrap over documents.")
    min_test_documents: int = Field(default=5, ge=2, le=1_000_000, description="Fewer are not evidence.")
    min_new_documents: int = Field(
        default=1,
        ge=0,
        le=1_000_000_000,
        description="Fewer new training documents than this are not worth retraining for.",
    )
    min_new_tokens: int = Field(
        default=1, ge=0, le=10**15, description="Fewer new training tokens than this are not worth retraining for."
    )
    known_margin: float = Field(
        default=0.3,
        ge=0,
        le=10,
        description="New pages are known already, and not worth retraining for, when the champion needs at least this "
        "many bits per byte less for them than for its test pages; 0: never ask.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the resampling.")
    approval: bool = Field(
        default=False, description="A better challenger waits until a person lets it take over; no answer means no."
    )
    approval_hours: float = Field(
        default=24, gt=0, le=8760, description="How long it waits for that person before the answer is no."
    )
