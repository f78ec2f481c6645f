"""The recipe: one model's life, as the TOML file a person writes and the form that the Prefect UI shows.

Every field is described, bounded and has a default that is right for a newcomer. `recipe` reads the file and
turns what is wrong with it into one line. The settings of each stage are defined in modules of their own; the code
of the stages takes them from here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from prosemill.config.corpus import Chunk, Dedup, Scrape, Split, Strip
from prosemill.config.deploy import Deploy
from prosemill.config.gate import Gate
from prosemill.config.section import Section
from prosemill.config.sources import AnySource, Source
from prosemill.config.training import Evaluate, Finetune, Write

__all__ = [
    "AsOf", "Chunk", "Dedup", "Deploy", "Evaluate", "Finetune", "Gate", "Recipe", "RecipeFile", "Scrape", "Section",
    "Source", "Split", "Strip", "Write",
]  # fmt: skip

# A parameter of flows. The pattern is for the form alone: elsewhere `summary.checked_date` refuses in better words.
AsOf = Annotated[str, Field(json_schema_extra={"pattern": r"^(\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}.*)?)?$"})]


class Recipe(Section):
    """One model's life: where its text comes from, how it is trained, when it takes over."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        description="Names the corpus and the model: lower-case letters, digits and hyphens.",
    )
    description: str = Field(default="", description="What this model is for; shown with its deployment.")
    language: str = Field(default="en", pattern=r"^[a-z]{2}$", description="Of the corpus, as ISO 639-1: en, zh, de …")
    sources: list[AnySource] = Field(min_length=1, description="Where the text comes from.")
    scrape: Scrape = Field(default=Scrape(), title="Scrape")
    strip: Strip = Field(default=Strip(), title="Strip")
    dedup: Dedup = Field(default=Dedup(), title="Dedup")
    split: Split = Field(default=Split(), title="Split")
    chunk: Chunk = Field(default=Chunk(), title="Chunk")
    finetune: Finetune = Field(default=Finetune(), title="Fine-tune")
    evaluate: Evaluate = Field(default=Evaluate(), title="Evaluate")
    gate: Gate = Field(default=Gate(), title="Gate")
    write: Write = Field(default=Write(), title="Write")

    @model_validator(mode="after")
    def _is_consistent(self) -> Recipe:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}; each needs a name of its own")
        if self.evaluate.stride > self.chunk.chunk_tokens:
            raise ValueError(
                f"evaluate.stride {self.evaluate.stride} is longer than chunk.chunk_tokens {self.chunk.chunk_tokens}"
            )
        return self


class RecipeFile(Recipe):
    """What the TOML file may hold: the recipe, and when and where it runs."""

    deploy: Deploy = Field(default=Deploy(), title="Deploy")
