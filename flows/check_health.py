"""Check a corpus and its champion: what a retraining mends becomes an event, the rest fails the run."""

from datetime import UTC, datetime

from flows.support.reported import reported_flow
from prosemill.config.settings import Recipe
from prosemill.errors import ModelUnhealthy
from prosemill.operations import health
from prosemill.registry.registry import Registry
from tasks.support import events, reporting


@reported_flow("check-health")
def check_health(recipe: Recipe, max_age_days: float = 0, store: str = "") -> list[dict[str, str]]:
    """Check that the store is writable, the sources give what they gave, the champion is complete and not too old.

    Fails with one line where a person has to act, so that an alert goes out.

    Args:
        recipe: The recipe of the corpus and model to look at.
        max_age_days: A champion that was trained longer ago is unwell; 0: age does not matter.
        store: Folder or URL of the store; empty: PROSEMILL_STORE, else data/store.
    """
    _, opened = reporting.begin("", store)
    registry = Registry.open(opened.url)
    findings = health.examine(opened, registry, recipe.name, max_age_days=max_age_days, now=datetime.now(UTC))
    rows = [finding.as_row() for finding in findings]
    reporting.show_health(recipe.name, rows)
    unwell = [
        finding
        for finding in findings
        if finding.state == "retrain" or (finding.what, finding.state) == ("champion", "act")
    ]
    if unwell:
        events.model_unwell(recipe.name, reason="; ".join(finding.detail for finding in unwell))
    to_do = [f"{finding.what}: {finding.detail}" for finding in findings if finding.state == "act"]
    if to_do:
        raise ModelUnhealthy(f"{recipe.name}: {'; '.join(to_do)}")
    return rows
