"""What a run does about its own end, and what it says of a child's: against a real server, without workers."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Running, Scheduled

from deployments import crash_safety
from flows.support import gpu_handover
from prosemill.errors import ProsemillError, TrainingError
from tasks.support import restarts

FAILURE = "Flow run encountered an exception: TrainingError: the loss is not finite at step 3;\n lower the rate"


@pytest.fixture
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@flow
def nothing() -> None:
    """Stands for any flow of ours."""


def lived_through(client: SyncPrefectClient, *states: State) -> UUID:
    """A flow run with this history."""
    run = client.create_flow_run(nothing, state=Scheduled())
    for state in states:
        client.set_flow_run_state(run.id, state, force=True)
    return run.id


def test_a_run_that_was_cancelled_and_then_died_stays_cancelled(client: SyncPrefectClient) -> None:
    run = lived_through(client, Running(), Cancelling(), Crashed(), Running())
    with pytest.raises(Abort):
        restarts._check_restart(run)
    state = client.read_flow_run(run).state
    assert state is not None
    assert state.type == StateType.CANCELLED


def test_a_run_that_dies_of_itself_is_not_restarted_for_ever(client: SyncPrefectClient) -> None:
    told_twice = [Running(), Crashed(), Scheduled(), Crashed()]
    run = lived_through(client, *told_twice * restarts.MOST_RESTARTS, Running())
    restarts._check_restart(run)  # the last time
    client.set_flow_run_state(run, Crashed(), force=True)
    with pytest.raises(ProsemillError, match="crashed 4 times and is not tried again"):
        restarts._check_restart(run)


@pytest.mark.parametrize("end", [Failed, Cancelled])
def test_what_a_person_retries_starts_afresh(client: SyncPrefectClient, end: type[State]) -> None:
    restarts._check_restart(lived_through(client, *[Running(), Crashed()] * 4, Cancelling(), end(), Running()))


def test_a_run_taken_for_dead_says_that_it_is_alive(client: SyncPrefectClient) -> None:
    run = lived_through(client, Running(), Crashed())
    assert restarts._needs(client, str(run), "") == "revive"
    restarts._act(client, run, "revive")
    state = client.read_flow_run(run).state
    assert state is not None
    assert state.type == StateType.RUNNING
    assert restarts._needs(client, str(run), "") == ""


def test_a_run_ends_with_the_run_that_asked_for_it(client: SyncPrefectClient) -> None:
    child, parent = lived_through(client, Running()), lived_through(client, Running())
    assert restarts._needs(client, str(child), str(parent)) == ""
    client.set_flow_run_state(parent, Cancelling())
    assert restarts._needs(client, str(child), str(parent)) == "cancel"


def test_a_parent_tells_in_one_line_how_its_training_ended(client: SyncPrefectClient) -> None:
    failed = lived_through(client, Running(), Failed(message=FAILURE))
    with pytest.raises(TrainingError) as caught:
        gpu_handover._wait_for(failed, "train-model/house")
    message = str(caught.value)
    assert message.startswith("the training (train-model/house, run ")
    assert message.endswith(
        ") was not completed (failed): TrainingError: the loss is not finite at step 3; lower the rate"
    )
    stopped = lived_through(client, Running(), Cancelled(message="by hand"))
    with pytest.raises(TrainingError, match="was cancelled: by hand"):
        gpu_handover._wait_for(stopped, "train-model/house")
    gpu_handover._wait_for(lived_through(client, Running(), Completed()), "train-model/house")


def test_the_server_takes_the_automations_as_they_are(client: SyncPrefectClient) -> None:
    wanted = crash_safety.automations()
    ids = [client.create_automation(automation) for automation in wanted]
    try:
        for number, automation in zip(ids, wanted, strict=True):
            stored = client.read_automation(number)
            assert stored is not None
            assert stored.trigger.model_dump(exclude={"id"}) == automation.trigger.model_dump(exclude={"id"})
            assert [action.type for action in stored.actions] == ["change-flow-run-state"]
    finally:
        for number in ids:
            client.delete_automation(number)
