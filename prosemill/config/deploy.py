"""Settings of a deployment: when the recipe runs by itself, and on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from prosemill.config import schedules
from prosemill.config.section import Section

Cron = Annotated[str, Field(max_length=100), AfterValidator(schedules.checked_cron)]
Job = Annotated[dict[str, JsonValue], AfterValidator(schedules.checked_job)]
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class Deploy(Section):
    """When the recipe runs by itself, and on what; read by `prosemill deploy`, no part of a run's parameters."""

    cron: Cron = Field(default="", description="When to retrain: minute hour day month weekday. Empty: by hand only.")
    corpus_cron: Cron = Field(
        default="", description="When to bring the corpus up to date without training. Empty: by hand only."
    )
    health_cron: Cron = Field(
        default="0 6 * * *",
        description="When to ask whether the model is well, where max_age_days or retrain_on calls for it.",
    )
    timezone: Annotated[str, AfterValidator(schedules.checked_timezone)] = Field(
        default="UTC", description="By which clock the schedules go, such as Europe/Berlin."
    )
    on_collision: Literal["enqueue", "cancel-new"] = Field(
        default="enqueue", description="What becomes of a run that is due while one of the same deployment is going on."
    )
    priority: Literal["first", "normal", "last"] = Field(
        default="normal", description="Whose turn it is when several recipes wait for the same workers."
    )
    tags: list[Tag] = Field(default=[], max_length=20, description="More tags for the runs, to find them by in the UI.")
    retrain_on: list[Literal["new-data", "unwell", "opt-out"]] = Field(
        default=[], description="What else starts a retraining: new-data, unwell, opt-out; any of them."
    )
    max_age_days: float = Field(
        default=0, ge=0, le=3650, description="A champion trained longer ago than this is unwell; 0: any age."
    )
    cpu_job: Job = Field(default={}, description="Job variables of runs on the cpu pool: env, image, memory_request …")
    gpu_job: Job = Field(default={}, description="Job variables of runs on the gpu pool: env, image, gpu_count …")

    @property
    def watches_health(self) -> bool:
        return bool(self.max_age_days) or "unwell" in self.retrain_on
