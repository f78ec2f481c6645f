"""The page of a corpus and its models over time: one Markdown text, new on every run, its key always the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prosemill.registry.registry import CHAMPION, ModelVersion
from prosemill.reporting import pages, plots, summary
from prosemill.reporting.pages import key_link, plain, run_link, table, unbroken, with_interval
from prosemill.storage import run_log
from prosemill.storage.run_log import COMPLETED, MAKERS, RUNNING, RunLog
from prosemill.storage.store import Store

MOST_ROWS = 30  # of versions, increments and runs

_NEXT = {
    "promote": "`prosemill write {name} \"…\"` writes with the new champion; `prosemill roll-back {name}` undoes it.",
    "reject": "The champion stays. Nothing to do.",
    "not-enough-evidence": "The champion stays. More test documents (pages, or split.test_share) would show more.",
    "nothing-new": "Nothing to do until there are new pages.",
    "awaiting-approval": "Look at the {scores}, the {samples} and the {approval}; then answer: open the run, ⋮, "
    "Resume, or `prosemill approve {name}`.",
    "not-approved": "The champion stays. The next run with new pages asks again.",
}  # fmt: skip


def landing_markdown(
    store: Store, name: str, versions: Sequence[ModelVersion], *, description: str = "", current: str = ""
) -> str:
    """`versions`: newest first, as the registry lists them. `current`: the id of the run that writes this page."""
    logs = run_log.read_all(store, name)
    top = [log for log in logs if not log.parent and log.flow in MAKERS]
    rows = [_version_row(store, version, logs) for version in versions[:MOST_ROWS]]
    increments = _increments(store, name)
    over_time = plots.markdown(plots.over_versions(rows[::-1]), "Perplexity of each version of the model")
    corpus = plots.markdown(plots.growth(increments), "Documents of the corpus, run by run")
    last = next((log for log in top if log.id == current), top[0] if top else None)
    parts = [f"# {name}", "", plain(description), "", _last_run(last), "", pages.links_to_others(name)]
    parts += ["", "## Models", "", over_time, "", _models(rows) if rows else "No model yet."]
    if over_time:
        parts += ["", "Each version was scored on the test documents of its own run; the gate compares on the same."]
    parts += ["", "## Corpus", "", corpus, "", _corpus(increments) if increments else "No complete corpus yet."]
    return "\n".join([*parts, "", "## Runs", "", _runs(top[:MOST_ROWS])])


def next_step(run: RunLog) -> str:
    """What a person may do now."""
    if run.decision in _NEXT:
        links = {kind: key_link(f"{run.recipe}-{kind}", kind) for kind in ("scores", "samples", "approval")}
        return _NEXT[run.decision].format(name=run.recipe, **links)
    if run.state == RUNNING:
        return "It is still going on."
    if run.state == COMPLETED:
        return "`prosemill retrain RECIPE`, or a run of retrain, trains on it."
    return "Its page has the log. Once the cause is gone, start it again: what is complete is kept."


def _last_run(run: RunLog | None) -> str:
    if run is None:
        return "No run yet."
    what = run.decision or run.state.lower()
    reason = f": {plain(run.reason)}" if run.reason else ""
    return f"**Last run** {run_link(run.id, run.title)}, {plain(what)}{reason}\n\n**Next** {next_step(run)}"


def _version_row(store: Store, version: ModelVersion, logs: Sequence[RunLog]) -> dict[str, Any]:
    """For the table and the plot; the interval is missing where the evaluation was deleted."""
    scores: dict[str, Any] = {"perplexity": version.metrics.get("perplexity")}
    if version.evaluation and store.has(version.evaluation):
        rows = {row["model"]: row for row in summary.score_table(store, version.evaluation)}
        scores |= rows.get("challenger", {})
    title = f"{version.name}/{version.version}"
    run = next((log for log in logs if log.model == title and not log.parent), None)
    return {
        **scores,
        "model": title,
        "as_of": version.as_of,
        "decision": version.decision,
        "approval": version.approval,
        "aliases": version.aliases,
        "is_champion": CHAMPION in version.aliases,
        "run": run_link(run.id, run.name) if run else "",
        "snapshot": version.snapshot,
    }


def _models(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            f"**{row['model']}**" if row["is_champion"] else row["model"],
            unbroken(row["as_of"]),
            unbroken(with_interval(row, "perplexity", 2)) if row["perplexity"] is not None else "",
            row["decision"],
            plain(row["approval"]),
            ", ".join(row["aliases"]),
            row["run"],
        ]
        for row in rows
    ]
    return table(
        ("model", "as of", "perplexity", "decision", "approval", "alias", "run"), cells, numbers=("perplexity",)
    )


def _increments(store: Store, name: str) -> list[dict[str, Any]]:
    """One row for each date whose snapshots are still there, oldest first."""
    rows = []
    for as_of, record in list(store.runs(name).items())[-MOST_ROWS:]:
        manifests = [run_log.manifest_or_none(store, record[stage]) for stage in ("dedup", "chunk") if stage in record]
        if len(manifests) == 2 and manifests[0] and manifests[1]:
            dedup, chunk = (manifest.totals for manifest in manifests if manifest)
            rows.append({
                "as_of": as_of, "documents": dedup["documents"], "new_documents": dedup["new_documents"],
                "train_tokens": chunk["train_tokens"], "new_train_tokens": chunk["new_train_tokens"],
            })  # fmt: skip
    return rows


def _corpus(increments: Sequence[dict[str, Any]]) -> str:
    header = ("as of", "documents", "new", "train tokens", "new tokens")
    cells = [[unbroken(increment["as_of"]), *(f"{value:,}" for key, value in increment.items() if key != "as_of")]
             for increment in reversed(increments)]  # fmt: skip
    return table(header, cells, numbers=header[1:])


def _runs(runs: Sequence[RunLog]) -> str:
    cells = [
        [run_link(run.id, run.title), unbroken(run.started[:16].replace("T", " ")), run.decision or run.state.lower(),
         plain(run.reason[:200])]
        for run in runs
    ]  # fmt: skip
    return table(("run", "started (UTC)", "decision", "because"), cells) if cells else "No run yet."
