"""OpenLineage run events of every stage that is not a cache hit: inputs, outputs, counts, reasons for drops.

One run of a stage is a START and a COMPLETE, FAIL (an error) or ABORT (somebody stopped it). A START without an end was
killed. A snapshot that was there already is not a run and has no event. `sinks` says where events go.

Datasets are named as OpenLineage's naming rules have it: a snapshot by file system and path, a site by scheme and host.
No event holds text of the corpus, a setting or a secret. The openlineage client is loaded with the first event (a
quarter of a second, once a process). An error in here is one warning and never fails a run.
"""

from __future__ import annotations

import contextlib
import logging
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prosemill.config import environment
from prosemill.errors import ProsemillError
from prosemill.lineage import sinks
from prosemill.lineage.compat import with_schema
from prosemill.lineage.dataset_names import model_name, origin_name, snapshot_name
from prosemill.storage import provenance, stages
from prosemill.storage.manifest import Manifest, stage_of
from prosemill.storage.stage_run import StageRun, Tell
from prosemill.storage.times import moment, parse

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

log = logging.getLogger(__name__)

# Our own facet; its JSON schema is FACET_SCHEMA, beside this file.
FACET = "prosemill_stage"
FACET_SCHEMA = Path(__file__).parent / "schemas" / "1-0-0" / "ProsemillStageRunFacet.json"
FACET_URL = "urn:prosemill:schemas:1-0-0:ProsemillStageRunFacet.json#/$defs/ProsemillStageRunFacet"
LONGEST_MESSAGE = 500


def observer(run: StageRun) -> Tell:
    """The observer of `run`, if events are wanted; it stops at its first error."""
    opened: list[sinks.Sink] = []

    def tell(state: str, error: BaseException | None) -> None:
        try:
            if state == "START" and environment.lineage_is_on():
                from openlineage.client.uuid import generate_new_uuid

                run.id = str(
                    generate_new_uuid()
                )  # a retry is a run of its own, so the id is not made from the snapshot's
                opened.append(sinks.Sink(run.fs, run.root, f"{run.id}.{run.snapshot or run.stage}"))
            for sink in opened:
                sink.take(event(run, state, error))
        except Exception as problem:  # noqa: BLE001 - a fault of lineage must not fail the run
            opened.clear()
            log.warning("no lineage event of %s: %s: %s", run.snapshot or run.stage, type(problem).__name__, problem)

    return tell


def event(run: StageRun, state: str, error: BaseException | None = None) -> RunEvent:
    """The event of `run` as it is now."""
    from openlineage.client import event_v2

    return event_v2.RunEvent(
        eventType=event_v2.RunState[state],
        eventTime=moment(timespec="microseconds"),
        producer=producer(),
        run=event_v2.Run(run.id, _run_facets(run, error)),
        job=event_v2.Job(environment.lineage_namespace(), run.job, _job_facets(run)),
        inputs=_inputs(run),
        outputs=_outputs(run),
    )


def producer() -> str:
    """This program as a URI (a package URL: it has no address)."""
    return f"pkg:generic/prosemill@{provenance.version()}"


# --- facets ----------------------------------------------------------------------------------------------------------


def _run_facets(run: StageRun, error: BaseException | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import error_message_run, nominal_time_run, parent_run, processing_engine_run

    by: Any = {"producer": producer()}
    facets: dict[str, Any] = {
        FACET: _stage_facet(run),
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            provenance.version(), "prosemill", provenance.version(), **by
        ),
    }
    if _is_uuid(run.flow_run_id):
        job = parent_run.Job(environment.lineage_namespace(), stages.of(run.stage).flow)
        facets["parent"] = parent_run.ParentRunFacet(parent_run.Run(run.flow_run_id), job, **by)
    if run.as_of:
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(_instant(run.as_of), **by)
    if error is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(_message(error), "PYTHON", **by)
    return facets


def _stage_facet(run: StageRun) -> Any:
    from openlineage.client.facet_v2 import RunFacet

    facts: dict[str, Any] = {"stage": run.stage, "asOf": run.as_of, "snapshot": run.snapshot}
    facts["codeCommit"] = provenance.code_commit()
    if run.manifest is not None:
        counts = run.manifest.counts
        facts |= {
            "stageVersion": run.manifest.stage_version,
            "partial": run.manifest.partial,
            "seen": counts.seen,
            "kept": counts.kept,
            "dropped": [{"reason": reason, "count": number} for reason, number in sorted(counts.dropped.items())],
            "roles": [_role(run.manifest, role) for role in sorted({shard.role for shard in run.manifest.shards})],
            "durationSeconds": run.manifest.duration_seconds,
            "cpuSeconds": run.manifest.cpu_seconds,
            "libraries": dict(run.manifest.libraries),
        }
    return with_schema(RunFacet(producer=producer()).with_additional_properties(**facts), FACET_URL)


def _role(manifest: Manifest, role: str) -> dict[str, Any]:
    """All of a role, and how much of it comes from earlier snapshots."""
    shards = manifest.shards_of(role)
    inherited = sum(not shard.path.startswith(f"{manifest.id}/") for shard in shards)
    rows, size = sum(shard.rows for shard in shards), sum(shard.size_bytes for shard in shards)
    return {"role": role, "files": len(shards), "inheritedFiles": inherited, "rows": rows, "sizeBytes": size}


def _job_facets(run: StageRun) -> dict[str, Any]:
    from openlineage.client.facet_v2 import documentation_job, job_type_job, source_code_location_job

    by: Any = {"producer": producer()}
    url, commit = provenance.code_url(), provenance.code_commit().removesuffix("+")
    facets: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet("BATCH", "PROSEMILL", "STAGE", **by),
        "sourceCodeLocation": source_code_location_job.SourceCodeLocationJobFacet(
            "git", url, repoUrl=None if url.startswith("file:") else url, version=commit or None, **by
        ),
    }
    if documentation := stages.of(run.stage).documentation:
        facets["documentation"] = documentation_job.DocumentationJobFacet(documentation, "text/plain", **by)
    return facets


# --- datasets --------------------------------------------------------------------------------------------------------


def _inputs(run: StageRun) -> list[InputDataset]:
    from openlineage.client.event_v2 import InputDataset

    snapshots = [
        InputDataset(*snapshot_name(run, parent), facets=_identity(parent)) for parent in dict.fromkeys(run.parents)
    ]
    others = dict.fromkeys(origin_name(origin) for origin in [*run.origins, *_base(run)])
    return snapshots + [InputDataset(namespace, name) for namespace, name in others]


def _base(run: StageRun) -> list[str]:
    """The weights that fine-tuning began with: a folder, the embedded ones, or of a hub."""
    base = str(run.settings.get("base", "")) if run.stage == "finetune" else ""
    if base == "demo":
        return ["prosemill:base/demo"]
    return [base if Path(base).is_absolute() else f"hf:models/{base}"] if base else []


def _outputs(run: StageRun) -> list[OutputDataset]:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    outputs = []
    if run.snapshot:
        facets, counted = _identity(run.snapshot), dict[str, Any]()
        if run.manifest is not None:
            facets |= _contents(run, run.manifest)
            own = [shard for shard in run.manifest.shards if shard.path.startswith(f"{run.manifest.id}/")]
            rows, size = sum(shard.rows for shard in own), sum(shard.size_bytes for shard in own)
            counted["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(
                rows, size, len(own), producer=producer()
            )
        outputs.append(OutputDataset(*snapshot_name(run, run.snapshot), facets=facets, outputFacets=counted))
    if run.model is not None:
        name, version = run.model
        outputs.append(OutputDataset(*model_name(run, name), facets=_identity(str(version), kind="MODEL")))
    return outputs


def _identity(version: str, kind: str = "") -> dict[str, Any]:
    """Version and type of a dataset: a finetune snapshot is a model, every other one files."""
    from openlineage.client.facet_v2 import dataset_type_dataset, dataset_version_dataset

    kind = kind or ("MODEL" if stages.of(stage_of(version)).makes_models else "FILE")
    return {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(version, producer=producer()),
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(kind, producer=producer()),
    }


def _contents(run: StageRun, manifest: Manifest) -> dict[str, Any]:
    """What a snapshot that is complete holds: its columns by role, its file formats."""
    from openlineage.client.facet_v2 import lifecycle_state_change_dataset as lifecycle
    from openlineage.client.facet_v2 import schema_dataset, storage_dataset

    by: Any = {"producer": producer()}
    formats = {Path(shard.path).suffix.lstrip(".") for shard in manifest.shards} - {""}
    layer = urlsplit(run.url).scheme if not run.is_local else "file"
    facets: dict[str, Any] = {
        "storage": storage_dataset.StorageDatasetFacet(layer, ", ".join(sorted(formats)) or None, **by),
        "lifecycleStateChange": lifecycle.LifecycleStateChangeDatasetFacet(lifecycle.LifecycleStateChange.CREATE, **by),
    }
    if run.columns:
        fields = [
            schema_dataset.SchemaDatasetFacetFields(
                role,
                "table",
                fields=[schema_dataset.SchemaDatasetFacetFields(column.name, str(column.type)) for column in columns],
            )
            for role, columns in sorted(run.columns.items())
        ]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields, **by)
    return facets


# --- values ----------------------------------------------------------------------------------------------------------


def _instant(as_of: str) -> str:
    """ "2026-01-05" as the midnight (UTC) with which it begins; a date-time keeps its zone, else it is UTC."""
    return parse(as_of).isoformat()


def _is_uuid(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return str(uuid.UUID(text)) == text.lower()
    return False


def _message(error: BaseException) -> str:
    """One line for a person; no credentials."""
    text = sinks.without_credentials(re.sub(r"\s+", " ", str(error)).strip())
    name = "" if isinstance(error, ProsemillError) else type(error).__name__
    return ": ".join(part for part in (name, text) if part)[:LONGEST_MESSAGE]
