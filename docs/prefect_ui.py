"""The picture of the README: a training in the Prefect UI, and beside it the decision that it led to.

    prosemill up                                    (in the folder of a demo that is done)
    python docs/prefect_ui.py LINK reading-room     LINK as `up` prints it

Writes docs/images/prefect-ui.png. Wants Chromium and the dev extra (playwright, Pillow by way of matplotlib).
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image
from playwright.sync_api import Page, sync_playwright

TARGET = Path(__file__).parent / "images" / "prefect-ui.png"
SIZE = {"width": 1000, "height": 760}  # pixels of each of the two pages


def api(link: str, path: str, body: dict[str, Any]) -> Any:
    """What the Prefect server behind the link answers to a POST."""
    url = urlsplit(link)
    login = base64.b64encode(unquote(url.fragment).encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{url.netloc}/api{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def screenshot(page: Page, url: str, text: str) -> Image.Image:
    """The page as it looks once `text` stands on it."""
    page.goto(url)
    page.get_by_text(text).first.wait_for(timeout=120_000)
    page.wait_for_timeout(5000)  # the graph of the run is drawn and moves into place
    return Image.open(io.BytesIO(page.screenshot()))


def main(link: str, name: str) -> None:
    ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "sort": "START_TIME_DESC", "limit": 50}
    run = next(run for run in api(link, "/flow_runs/filter", ended) if run["name"].endswith(" training"))
    keyed = {"artifacts": {"key": {"any_": [f"{name}-decision"]}}}
    (artifact,) = api(link, "/artifacts/latest/filter", keyed)
    start = f"http://{urlsplit(link).netloc}"
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light", device_scale_factor=1)  # type: ignore[arg-type]
        page.goto(link)
        page.wait_for_url(lambda url: "login" not in url)
        pages = [
            screenshot(page, f"{start}/runs/flow-run/{run['id']}", "Task Runs"),
            screenshot(page, f"{start}/artifacts/artifact/{artifact['latest_id']}", "bits per byte less"),
        ]
        browser.close()
    picture = Image.new("RGB", (SIZE["width"] * 2 + 20, SIZE["height"]), "white")
    for number, part in enumerate(pages):
        picture.paste(part, (number * (SIZE["width"] + 20), 0))
    TARGET.parent.mkdir(exist_ok=True)
    picture.quantize(128).save(TARGET, optimize=True)
    print(TARGET)


if __name__ == "__main__":
    main(*sys.argv[1:])
