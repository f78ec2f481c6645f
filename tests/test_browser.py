"""What a person does in the Prefect UI, in a headless browser: fill the form, start, look, approve, look again."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from prosemill.registry.registry import Registry
from prosemill.storage import run_log
from prosemill.storage.store import Store
from tests.programs import chromium
from tests.serving import Stack

SECONDS = 120  # for one thing to appear on a machine that is busy with other things
DEPLOYMENT = "retrain/stories"
NAME = "ballads"  # typed into the form: a corpus and a model of its own beside those of other tests

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    """A page of a browser that has followed the link which `prosemill up` printed."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(SECONDS * 1000)
        expect.set_options(timeout=SECONDS * 1000)
        page.goto(stack.link)
        expect(page.get_by_role("link", name="Runs")).to_be_visible()
        yield page


@pytest.fixture(scope="module")
def shoot(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Keeps a picture of the page, to be looked at: pytest keeps the folders of the last three sessions."""
    folder = tmp_path_factory.mktemp("screenshots")

    def take(name: str) -> Path:
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        return path

    return take


def open_form(stack: Stack, page: Page) -> dict[str, Any]:
    deployment = stack.deployment(DEPLOYMENT)
    page.goto(f"{stack.ui}/v2/deployments/deployment/{deployment['id']}/run")
    expect(page.get_by_role("button", name="Submit")).to_be_visible()
    expect(field(page, "Name")).to_have_value("stories")
    return deployment


def field(page: Page, label: str) -> Locator:
    """The first field of that label; those that may be left out are marked so."""
    return page.get_by_label(re.compile(rf"^{re.escape(label)}( \(Optional\))?$")).first


def runs_of(stack: Stack, deployment: dict[str, Any]) -> set[str]:
    wanted = {"deployment_id": {"any_": [deployment["id"]]}}
    return {flow_run["id"] for flow_run in stack.post("/flow_runs/filter", flow_runs=wanted)}


def test_the_form_is_described_and_refuses_bad_values(stack: Stack, page: Page, shoot: Callable[[str], Path]) -> None:
    deployment = open_form(stack, page)
    before = runs_of(stack, deployment)
    for help_text in ("How politely and how far.", "When the challenger takes over.", "Names the corpus and the model"):
        expect(page.get_by_text(help_text).first).to_be_visible()
    shoot("form")

    page.get_by_role("tab", name="Data set").click()  # each kind of source has its own fields
    expect(field(page, "Kind")).to_have_value("dataset")
    expect(field(page, "Dataset Split")).to_be_visible()
    shoot("dataset")
    page.get_by_role("tab", name="Folder").click()
    expect(field(page, "Path")).to_have_value(str(stack.home / "texts"))

    field(page, "Delay Seconds").fill("-1")  # bounds are the browser's own business: it says so in a bubble
    page.get_by_role("button", name="Submit").click()
    bubble = field(page, "Delay Seconds").evaluate("input => input.validationMessage")
    assert bubble == "Value must be greater than or equal to 0."
    field(page, "Delay Seconds").fill("0")

    field(page, "Name").fill("Bad Name!")
    field(page, "Path").fill("")
    field(page, "as_of").fill("tomorrow")
    page.get_by_role("button", name="Submit").click()
    for help_text in ("'Bad Name!' does not match", "'path' is a required property", "'tomorrow' does not match"):
        expect(page.get_by_text(help_text).last).to_be_visible()
    page.get_by_text("'Bad Name!' does not match").first.scroll_into_view_if_needed()
    shoot("refused")
    assert runs_of(stack, deployment) == before, "nothing was started"


@pytest.mark.slow
def test_a_run_is_started_watched_and_approved(stack: Stack, page: Page, shoot: Callable[[str], Path]) -> None:
    run = start(stack, page)
    stack.wait(run, states=["Suspended"])
    assert Registry.open(str(stack.store)).champion(NAME) is None, "it waits for a person"

    page.goto(f"{stack.ui}/v2/runs/flow-run/{run}")
    expect(page.get_by_text("Suspended").first).to_be_visible()
    graph_is_drawn(page)
    shoot("suspended")
    approve(page, shoot)

    stack.wait(run, states=["COMPLETED"])
    champion = Registry.open(str(stack.store)).champion(NAME)
    assert champion is not None
    assert champion.approval.startswith("approved by Ada Lovelace at ")
    log = run_log.read(Store(str(stack.store)), run)
    assert log is not None
    assert (log.name, log.decision, log.model) == (f"{NAME} 2026-01-05", "promote", f"{NAME}/1")

    page.goto(f"{stack.ui}/v2/runs/flow-run/{run}")
    expect(page.get_by_text("Completed").first).to_be_visible()
    graph_is_drawn(page)
    shoot("completed")
    look_at_artifacts(page, shoot)


def start(stack: Stack, page: Page) -> str:
    """Fill the form and send it; the id of the run."""
    deployment = open_form(stack, page)
    before = runs_of(stack, deployment)
    field(page, "Name").fill(NAME)
    field(page, "as_of").fill("2026-01-05")
    approval = page.get_by_role("switch", name=re.compile(r"^Approval( \(Optional\))?$"))
    approval.click()
    expect(approval).to_be_checked()
    page.get_by_role("button", name="Submit").click()
    deadline = time.monotonic() + SECONDS
    while not (started := runs_of(stack, deployment) - before):
        assert time.monotonic() < deadline, "the form was sent, and no run came of it"
        time.sleep(0.5)
    (run,) = started
    parameters = stack.flow_run(run)["parameters"]
    assert (parameters["recipe"]["gate"]["approval"], parameters["as_of"]) == (True, "2026-01-05")
    return run


def graph_is_drawn(page: Page) -> None:
    """Some of the graph's picture is in the green of what is completed: it is drawn on a canvas, not in HTML."""
    canvas = page.locator("canvas").first
    expect(canvas).to_be_visible()
    deadline = time.monotonic() + SECONDS
    while True:
        picture = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
        colors = picture.getcolors(maxcolors=1 << 24) or []
        green = sum(count for count, (red, green, blue) in colors if green > red + 60 and green > blue + 30)
        if green > 100:
            return
        assert time.monotonic() < deadline, "no task of the run is to be seen in its graph"
        time.sleep(1)


def approve(page: Page, shoot: Callable[[str], Path]) -> None:
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Resume").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(f"May {NAME}/1 take over?")).to_be_visible()
    expect(dialog.get_by_role("cell", name="challenger")).to_be_visible()
    shoot("question")
    dialog.get_by_label("Take over?").click()
    page.get_by_role("option", name="yes").click()
    dialog.get_by_label("Your name").fill("Ada Lovelace")
    shoot("answer")
    dialog.get_by_role("button", name="Resume").click()
    expect(dialog).to_be_hidden()


def look_at_artifacts(page: Page, shoot: Callable[[str], Path]) -> None:
    """From the run to its report, from there to the page of the corpus and to the lineage, by clicking."""
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text(f"{NAME}-report").click()
    newest(page)
    expect(page.get_by_role("heading", name=f"promote: {NAME}/1")).to_be_visible()
    shoot("report")

    page.get_by_role("link", name=f"{NAME} over time").click()
    newest(page)
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    for picture in ("Perplexity of each version of the model", "Documents of the corpus, run by run"):
        image = page.get_by_role("img", name=picture)
        expect(image).to_be_visible()
        assert image.evaluate("image => image.naturalWidth") > 300, "drawn, not a broken picture"
    expect(page.get_by_text("approved by Ada Lovelace").first).to_be_visible()
    shoot("landing")

    page.get_by_role("link", name="lineage", exact=True).click()
    newest(page)
    expect(page.get_by_test_id("markdown-display").locator("svg").first).to_be_visible()
    shoot("lineage")
    page.get_by_role("link", name=re.compile(r"^build-corpus .* corpus$")).first.click()  # of whichever run made it
    page.wait_for_url(re.compile(r"/v2/runs/flow-run/"))
    graph_is_drawn(page)
    shoot("corpus-run")


def newest(page: Page) -> None:
    """From the versions of an artifact to the newest of them."""
    page.wait_for_url(re.compile(r"/v2/artifacts/key/"))
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.wait_for_url(re.compile(r"/v2/artifacts/artifact/"))
