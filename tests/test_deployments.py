"""What runs where: plans that hold, pools for three kinds of workers, applying that changes nothing twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule

from deployments import job_templates
from deployments.applying import apply
from deployments.checks import check
from deployments.plan import PREFECT_YAML, Deployment, DeploymentPlan, plan, read
from prosemill.config import environment
from prosemill.errors import ProsemillError, RecipeError
from tests.serving import ROOT, clean_environment
from tests.stories import recipe_text, write_corpus
from tests.tiny import make_base

DEPLOY = """
[deploy]
cron = "30 2 * * 1-5"
timezone = "Europe/Berlin"
corpus_cron = "0 * * * *"
on_collision = "cancel-new"
priority = "first"
tags = ["berlin"]
retrain_on = ["new-data", "unwell"]
max_age_days = 30
[deploy.gpu_job.env]
NCCL_DEBUG = "INFO"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("deployments")
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    (home / "stories.toml").write_text(recipe_text())
    (home / "nightly.toml").write_text(recipe_text(more=DEPLOY).replace('"stories"', '"nightly"'))
    return home


def recipe(home: Path, deploy: str, name: str = "other") -> Path:
    """A recipe file beside the base and the texts."""
    path = home / f"{name}.toml"
    path.write_text(recipe_text(more=deploy).replace('"stories"', f'"{name}"'))
    return path


def named(planned: DeploymentPlan, name: str) -> Deployment:
    (deployment,) = [candidate for candidate in planned.deployments if candidate.full_name == name]
    return deployment


# --- planning -----------------------------------------------------------------------------------------------------


def test_every_flow_is_deployed_for_any_recipe_and_for_each(home: Path) -> None:
    planned = plan([home / "stories.toml"], "/store")
    check(planned)
    places = {deployment.full_name: (deployment.pool, deployment.queue) for deployment in planned.deployments}
    assert places == {
        f"{flow}/{name}": place
        for name in ("any", "stories")
        for flow, place in {
            "build-corpus": ("cpu", "default"), "train-model": ("gpu", "train"), "retrain": ("cpu", "default"),
        }.items()
    }  # fmt: skip
    generic, own = named(planned, "retrain/any"), named(planned, "retrain/stories")
    assert generic.parameters == {"store": "/store", "train_on": "train-model/any"}
    assert own.parameters["train_on"] == "train-model/stories"
    assert own.parameters["recipe"]["sources"][0]["path"] == str(home / "texts")
    assert "deploy" not in own.parameters["recipe"]
    assert {deployment.limit.limit for deployment in planned.deployments} == {1}
    assert own.schedule is None
    assert {pool.name: pool.concurrency_limit for pool in planned.pools} == {"cpu": None, "gpu": 1}


def test_a_recipe_says_when_and_how_it_is_deployed(home: Path) -> None:
    planned = plan([home / "nightly.toml"], "/store", gpus=2)
    check(planned)
    parent, training = named(planned, "retrain/nightly"), named(planned, "train-model/nightly")
    corpus, watch = named(planned, "build-corpus/nightly"), named(planned, "check-health/nightly")
    for deployment, cron in ((parent, "30 2 * * 1-5"), (corpus, "0 * * * *"), (watch, "0 6 * * *")):
        assert deployment.schedule is not None
        assert (deployment.schedule.cron, deployment.schedule.timezone) == (cron, "Europe/Berlin")
    assert training.schedule is None
    assert watch.parameters["max_age_days"] == 30
    assert {deployment.queue for deployment in (parent, training, corpus, watch)} == {"first"}
    assert parent.limit.collision_strategy == "CANCEL_NEW"
    assert parent.tags == ["prosemill", "retrain", "nightly", "berlin"]
    assert training.job_variables["env"] == {**environment.of_job("/store"), "NCCL_DEBUG": "INFO"}
    assert "NCCL_DEBUG" not in parent.job_variables["env"]
    assert named(planned, "retrain/any").limit.collision_strategy == "ENQUEUE"
    assert [pool.concurrency_limit for pool in planned.pools if pool.name == "gpu"] == [2]


def test_a_job_is_told_where_its_store_and_its_results_are_but_no_secret() -> None:
    local = environment.of_job("/store", {"MLFLOW_TRACKING_URI": "https://mlflow.example.org"})
    assert local["PROSEMILL_STORE"] == "/store"
    assert local["PREFECT_LOCAL_STORAGE_PATH"] == "/store/prefect/results"
    assert local["MLFLOW_TRACKING_URI"] == "https://mlflow.example.org"
    assert local["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    remote = environment.of_job("s3://bucket/store", {})
    assert remote["PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"] == "remote-file-system/prosemill-results"
    assert "MLFLOW_TRACKING_URI" not in remote
    with pytest.raises(ProsemillError, match="holds a password"):
        environment.of_job("/store", {"MLFLOW_TRACKING_URI": "https://me:word@mlflow.example.org"})


@pytest.mark.parametrize(
    ("deploy", "message"),
    [
        ("[deploy.gpu_job]\ngpu_cuont = 1", r"train-model/other: \[deploy\] gpu_job: a process pool has no job vari"),
        ("[deploy.cpu_job]\nstream_output = 'perhaps'", r"build-corpus/other: \[deploy\] cpu_job: .*perhaps"),
        ("[deploy.gpu_job]\nenv = {HF_TOKEN = 'x'}", r"deploy\.gpu_job: env\.HF_TOKEN looks like a secret"),
        ("[deploy]\ncron = '0 25 * * *'", r"deploy\.cron: '0 25 \* \* \*' is not a schedule \(Bad hour\)"),
        ("[deploy]\ncron = '@daily'", r"deploy\.cron: '@daily' has 1 fields; minute hour day month weekday are needed"),
        ("[deploy]\ntimezone = 'Europe/Berln'", r"is not a time zone; did you mean 'Europe/Berlin'\?"),
        ("[deploy]\non_colision = 'enqueue'", r"unknown key deploy\.on_colision; did you mean 'on_collision'\?"),
        ("[deploi]\ncron = ''", r"unknown key deploi; did you mean 'deploy'\?"),
        ("[deploy]\nretrain_on = ['new']", r"deploy\.retrain_on\[0\] = 'new': should be 'new-data', 'unwell' or"),
    ],
)  # fmt: skip
def test_a_wrong_deploy_table_is_refused_in_one_line(home: Path, deploy: str, message: str) -> None:
    with pytest.raises(ProsemillError, match=message) as error:
        check(plan([recipe(home, deploy)], "/store"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    tags: [prosemill, corpus]", "    tag: [prosemill, corpus]", r"deployments\.0\.tags: Field required"),
        ("    tags: [prosemill, corpus]", "    tags: [prosemill]\n    schedulle: {}", r"schedulle: Extra inputs"),
        ("    limit: 1\n", "    limit: 0\n", r"concurrency_limit\.limit: Input should be greater"),
        ("work_pools:", "work_pols:", "work_pools: Field required"),
        ("name: prosemill", "name: [", "is not YAML"),
    ],
)
def test_a_misspelt_key_of_prefect_yaml_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = PREFECT_YAML.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "prefect.yaml").write_text(text.replace(old, new))
    with pytest.raises(ProsemillError, match=message):
        read(tmp_path / "prefect.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"shop": "x"}}, r"flows\.retrain\.retrain has no parameter shop"),
        ({"parameters": {"as_of": 5}}, "retrain/any: a parameter does not fit the flow: .*as_of"),
        ({"parameters": {"train_on": "train-model/none"}}, "train_on = 'train-model/none' is not a deployment"),
        ({"entrypoint": "flows.retrain.gone"}, r"flows\.retrain\.gone cannot be imported"),
        ({"entrypoint": "flows.gone.retrain"}, r"flows\.gone\.retrain cannot be imported: No module"),
        ({"entrypoint": "flows.retrain.Recipe"}, r"flows\.retrain\.Recipe is not a flow"),
        ({"queue": "tomorrow"}, "the pool cpu has no queue 'tomorrow'"),
    ],
)
def test_what_a_worker_would_stumble_over_is_found_before(changes: dict[str, Any], message: str) -> None:
    planned = plan([], "/store")
    wrong = Deployment(**{**vars(planned.deployments[2]), **changes})
    planned.deployments[2] = wrong
    with pytest.raises(ProsemillError, match=message):
        check(planned)


def test_two_recipes_of_one_name_are_refused(home: Path) -> None:
    with pytest.raises(ProsemillError, match="two deployments would be named 'stories'"):
        plan([home / "stories.toml", home / "stories.toml"], "/store")
    with pytest.raises(RecipeError, match="no such file"):
        plan([home / "story.toml"], "/store")


# --- applying -----------------------------------------------------------------------------------------------------


def applied(planned: DeploymentPlan) -> dict[str, str]:
    """What each line of `prosemill deploy` says, by kind and name."""
    check(planned)
    return {f"{change.kind} {change.name}": str(change).rpartition(": ")[2] for change in apply(planned)}


def stamps() -> dict[str, Any]:
    """When each thing on the server was changed last."""
    with get_client(sync_client=True) as client:
        pools = [pool for pool in client.read_work_pools() if pool.name in job_templates.POOLS]
        queues = [queue for pool in pools for queue in client.read_work_queues(work_pool_name=pool.name)]
        everything = [*pools, *queues, *client.read_deployments(), *client.read_automations()]
        return {
            f"{type(entity).__name__} {entity.name} {entity.id}": getattr(entity, "updated", None)
            for entity in everything
        }


@pytest.mark.usefixtures("prefect_api")
def test_applying_twice_changes_nothing_and_a_changed_recipe_changes_what_it_says(home: Path) -> None:
    path = home / "applied.toml"
    shutil.copy(home / "nightly.toml", path)
    path.write_text(path.read_text().replace('"nightly"', '"applied"'))
    store = str(home / "store")

    first = applied(plan([path], store))
    assert first["deployment retrain/applied"] == "created"
    assert first["automation prosemill applied: retrain on new-data"] == "created"
    assert {"work pool cpu", "work pool gpu", "queue gpu/train", "queue cpu/first"} <= set(first)

    before = stamps()
    assert set(applied(plan([path], store)).values()) == {"unchanged"}
    assert stamps() == before

    path.write_text(path.read_text().replace("epochs = 4", "epochs = 5").replace("30 2 * * 1-5", "45 2 * * *"))
    changed = {name: change for name, change in applied(plan([path], store)).items() if change != "unchanged"}
    assert changed == {
        "deployment build-corpus/applied": "changed (parameters)",
        "deployment train-model/applied": "changed (parameters)",
        "deployment retrain/applied": "changed (parameters, schedule)",
        "deployment check-health/applied": "changed (parameters)",
    }
    assert set(applied(plan([path], store)).values()) == {"unchanged"}

    path.write_text(path.read_text().replace('cron = "45 2 * * *"\n', "").replace('priority = "first"\n', ""))
    changed = {name: change for name, change in applied(plan([path], store, gpus=2)).items() if change != "unchanged"}
    assert changed == {
        "work pool gpu": "changed (concurrency_limit)",
        "deployment build-corpus/applied": "changed (work_queue_name)",
        "deployment train-model/applied": "changed (work_queue_name)",
        "deployment retrain/applied": "changed (work_queue_name, schedule)",
        "deployment check-health/applied": "changed (work_queue_name)",
    }


@pytest.mark.usefixtures("prefect_api")
def test_what_people_set_in_the_ui_stays(home: Path) -> None:
    path = recipe(home, '[deploy]\ncron = "0 3 * * *"\n', "handled")
    applied(plan([path], "/store"))
    with get_client(sync_client=True) as client:
        deployed = client.read_deployment_by_name("retrain/handled")
        client.update_deployment_schedule(deployed.id, deployed.schedules[0].id, active=False)
        own = DeploymentScheduleCreate(schedule=IntervalSchedule(interval="P3D"))
        client.create_deployment_schedules(deployed.id, [own])

        path = recipe(home, '[deploy]\ncron = "0 4 * * *"\n', "handled")
        assert applied(plan([path], "/store"))["deployment retrain/handled"] == "changed (schedule)"
        schedules = {
            schedule.slug: schedule for schedule in client.read_deployment_by_name("retrain/handled").schedules
        }
        assert schedules["recipe"].schedule.cron == "0 4 * * *"
        assert schedules["recipe"].active is False
        assert schedules[None].schedule.interval.days == 3


@pytest.mark.usefixtures("prefect_api")
def test_a_remote_store_gets_a_block_for_results() -> None:
    assert applied(plan([], "s3://one/store"))["block prosemill-results"] == "created"
    assert applied(plan([], "s3://one/store"))["block prosemill-results"] == "unchanged"
    assert applied(plan([], "s3://two/store"))["block prosemill-results"] == "changed (basepath)"


@pytest.mark.usefixtures("prefect_api")
def test_a_pool_of_another_kind_is_refused_before_anything_is_written(home: Path) -> None:
    applied(plan([], "/store"))
    before = stamps()
    with pytest.raises(ProsemillError, match="the work pool cpu is of type process, which cannot be changed to docker"):
        applied(plan([home / "stories.toml"], "/store", kind="docker", image="prosemill:1"))
    assert stamps() == before


def deploy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flows.cli import main; main()", "deploy", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environment(), check=False, text=True, capture_output=True)


def test_a_dry_run_needs_no_server_and_prints_it_all(home: Path) -> None:
    done = deploy(str(home / "nightly.toml"), "--dry-run", "--store", str(home / "dry"))
    assert (done.returncode, done.stderr) == (0, "")
    content = yaml.safe_load(done.stdout)
    assert [pool["name"] for pool in content["work_pools"]] == ["cpu", "gpu"]
    deployed = {deployment["name"]: deployment for deployment in content["deployments"]}
    schedule = {"slug": "recipe", "cron": "30 2 * * 1-5", "timezone": "Europe/Berlin"}
    assert deployed["retrain/nightly"]["schedule"] == schedule
    assert deployed["retrain/nightly"]["parameters"]["recipe"]["name"] == "nightly"
    automations = {automation["name"] for automation in content["automations"]}
    assert {
        "prosemill nightly: retrain on unwell",
        "prosemill: crash safety, mark zombie runs as crashed",
    } <= automations


def test_without_a_server_it_says_so_in_one_line(home: Path) -> None:
    done = deploy("--store", str(home / "dry"))
    assert done.returncode == 1
    message = "prosemill: no Prefect server is named or running here; set PREFECT_API_URL, or run `prosemill up`\n"
    assert done.stderr == message
