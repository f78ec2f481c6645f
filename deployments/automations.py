"""Automations as code: retraining on events, alerts when something needs a person, restarts of crashed runs
(`crash_safety`).

Each is known by its name: `prosemill <recipe>: …` for those of a recipe, `prosemill: …` for those of all. Applying
creates what is missing, corrects what differs and removes what is no longer wanted; what somebody switched off in the
UI stays off.

A retraining cannot start the next one. It builds the corpus itself, and the events of such a build say
`prosemill.by-itself = no`, which no trigger here listens to; the event of an unwell model comes from check-health
alone, which only a schedule or a person starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import ActionTypes, CallWebhook, RunDeployment, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from deployments import crash_safety
from prosemill.config.settings import Deploy, Recipe
from prosemill.errors import ProsemillError
from tasks.support import events

SHARED = "prosemill: "
PAGE = 200  # the most that the API lists at once
DRY_RUN_ID = UUID(int=0)  # stands for what a dry run has not created
_IN_TROUBLE = ("Failed", "TimedOut", "Crashed")
# Texts are Jinja expressions that the server fills in. `flow_run` is the run that an event is about, or comes from.
_TROUBLE = (
    'flow.name ~ " " ~ flow_run.name ~ " is " ~ flow_run.state.name ~ ": " ~ (flow_run.state.message or "") ~ " "'
    " ~ (flow_run|ui_url)"
)
_QUESTION = 'event.payload.model ~ " waits for approval: " ~ event.payload.reason ~ " " ~ (flow_run|ui_url)'

ChangeKind = Literal["created", "changed", "unchanged", "removed"]


def automations(recipe: Recipe, deploy: Deploy, retrain: UUID) -> list[AutomationCore]:
    """What starts a run of the deployment `retrain` for this recipe, besides its schedule."""
    corpus, model = events.corpus_resource(recipe.name), events.model_resource(recipe.name)
    by_itself = {"prefect.resource.id": corpus, events.BY_ITSELF: "yes"}
    corpus_date = {"as_of": "{{ event.payload.as_of }}"}  # so that the run finds the corpus made
    wanted = {
        "new-data": (events.CORPUS_UPDATED, by_itself | {events.WORTH_TRAINING: "yes"}, corpus_date),
        "opt-out": (events.CORPUS_OPTED_OUT, by_itself | {events.LEARNED: "yes"}, corpus_date),
        "unwell": (events.MODEL_UNWELL, {"prefect.resource.id": model}, {}),
    }
    return [
        AutomationCore(
            name=f"{prefix_of(recipe.name)}retrain on {cause}",
            description=f"Starts retrain/{recipe.name} after {event}.",
            trigger=_on({event}, match),
            actions=[
                RunDeployment(source="selected", deployment_id=retrain, parameters=parameters, job_variables=None)
            ],
        )
        for cause, (event, match, parameters) in wanted.items()
        if cause in deploy.retrain_on
    ]


def alerts(block_type: str, block: UUID) -> list[AutomationCore]:
    """Tell a person of every deployed run that fails or crashes, and of a challenger that waits for approval."""
    runs, deployed = {"prefect.resource.id": "prefect.flow-run.*"}, {"prefect.resource.id": "prefect.tag.prosemill"}
    return [
        AutomationCore(
            name=f"{SHARED}alert on a failed run",
            description="A run of a prosemill deployment failed, timed out or crashed.",
            trigger=_on({f"prefect.flow-run.{state}" for state in _IN_TROUBLE}, runs, related=deployed),
            actions=[_tell(block_type, block, "A run needs attention", _TROUBLE)],
        ),
        AutomationCore(
            name=f"{SHARED}alert on an approval",
            description="A better challenger waits until a person lets it take over.",
            trigger=_on({events.APPROVAL_ASKED}, {"prefect.resource.id": "prosemill.model.*"}),
            actions=[_tell(block_type, block, "A model waits for approval", _QUESTION)],
        ),
    ]


def apply(
    client: SyncPrefectClient, recipes: Sequence[tuple[Recipe, Deploy]], *, alert_block: str = "", dry_run: bool = False
) -> dict[str, ChangeKind]:
    """Make the server's automations those that these recipes want; the change of each, by name.

    Deployments come first: an automation names its deployment by id. `alert_block`: "block-type/name", "" for no
    alerts. Automations of other recipes are left alone. A dry run only returns the changes.
    """
    wanted = {automation.name: _whole(automation) for automation in _wanted(client, recipes, alert_block, dry_run)}
    ours = (SHARED, *(prefix_of(recipe.name) for recipe, _ in recipes))
    there = {automation.name: automation for automation in _read(client) if automation.name.startswith(ours)}
    done: dict[str, ChangeKind] = {}
    for name, automation in wanted.items():
        done[name] = _kind(there.get(name), automation)
        if not dry_run:
            _put(client, there.get(name), automation, done[name])
    for name in sorted(there.keys() - wanted.keys()):
        done[name] = "removed"
        if not dry_run:
            client.delete_automation(there[name].id)
    return done


def prefix_of(recipe: str) -> str:
    return f"prosemill {recipe}: "


# --- inside ----------------------------------------------------------------------------------------------------------


def _on(expected: set[str], match: dict[str, Any], related: dict[str, Any] | None = None) -> EventTrigger:
    """At once, and for each event."""
    return EventTrigger(
        expect=expected, match=match, match_related=related or {}, posture=Posture.Reactive, threshold=1
    )


def _tell(block_type: str, block: UUID, subject: str, text: str) -> ActionTypes:
    """A webhook gets {"text": …}, which chat services understand; any other block is a notification block."""
    if block_type == "webhook":
        return CallWebhook(block_document_id=block, payload=f'{{"text": {{{{ ({text})|tojson }}}}}}')
    return SendNotification(block_document_id=block, subject=f"prosemill: {subject}", body=f"{{{{ {text} }}}}")


def _wanted(
    client: SyncPrefectClient, recipes: Sequence[tuple[Recipe, Deploy]], alert_block: str, dry_run: bool
) -> Iterator[AutomationCore]:
    for recipe, deploy in recipes:
        if deploy.retrain_on:
            yield from automations(recipe, deploy, _deployment(client, f"retrain/{recipe.name}", dry_run))
    yield from crash_safety.automations()
    if alert_block:
        yield from alerts(alert_block.partition("/")[0], _block(client, alert_block))


def _deployment(client: SyncPrefectClient, name: str, dry_run: bool) -> UUID:
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound:
        if dry_run:
            return DRY_RUN_ID
        raise ProsemillError(f"{name}: no such deployment on {client.api_url}; deploy the recipe first") from None


def _block(client: SyncPrefectClient, named: str) -> UUID:
    block_type, slash, name = named.partition("/")
    with contextlib.suppress(ObjectNotFound):
        if slash:
            return client.read_block_document_by_name(name, block_type, include_secrets=False).id
    raise ProsemillError(
        f"PROSEMILL_ALERT_BLOCK = {named!r}: no such block on {client.api_url}; make one in the UI under Blocks, and "
        "name it as block-type/name, for example slack-webhook/ops or webhook/pager"
    )


def _read(client: SyncPrefectClient) -> Iterator[Automation]:
    offset = 0
    while page := client.read_automations(limit=PAGE, offset=offset):
        yield from page
        offset += len(page)


def _kind(there: Automation | None, wanted: AutomationCore) -> ChangeKind:
    if there is None:
        return "created"
    return "unchanged" if _content(there) == _content(wanted) else "changed"


def _put(client: SyncPrefectClient, there: Automation | None, wanted: AutomationCore, kind: ChangeKind) -> None:
    if there is None:
        client.create_automation(wanted)
    elif kind == "changed":
        client.update_automation(there.id, wanted.model_copy(update={"enabled": there.enabled}))


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What we say about an automation. Whether it is switched on is the operator's."""
    return _whole(automation).model_dump(exclude={"enabled"})


def _whole(automation: AutomationCore) -> AutomationCore:
    """With every field set but the owner: an update sends what was set, needs a trigger's type, refuses an owner."""
    return AutomationCore.model_validate(automation.model_dump(exclude={"id", "owner_resource"}))
