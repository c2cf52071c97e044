"""Everybody can use the dashboard: contrast and names (axe-core), narrow screens, large letters, the keyboard."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import DESKTOP
from tests.integration.server import ArcServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    Opener = Callable[..., Page]

INSTALL_S = 300  # seconds npm may take
AXE = "axe-core@4.10.3"  # pinned: a newer one may ask for more
PAGES = (
    "overview",
    "metrics?sql=SELECT time, host, usage FROM cpu",
    "metrics/queries",
    "metrics/upkeep",
    "jobs",
    "jobs/new",
    "jobs/queues",
    "jobs/{job}",
    "fleet",
    "fleet/runs",
    "actions",
    "actions/new?kind=arc.edge/agent.loglevel",
    "actions/{action}",
    "system",
    "system/tokens",
    "system/configuration",
    "system/logs?level=WARNING",
)
TABLET = {"width": 700, "height": 500}  # a desktop screen of 1400 x 1000 at 200 %
PHONE = {"width": 360, "height": 740}
NARROW = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    with ArcServer(tmp_path_factory.mktemp("dashboard") / "data") as started:
        yield started


@pytest.fixture(scope="module")
def pages(server: ArcServer) -> list[str]:
    """Addresses of pages with something on each."""
    with server.connect() as connection:
        lines = "\n".join(f"cpu,host=h{host} usage={value} {value}000000000" for host in (1, 2) for value in range(9))
        assert connection.request("POST", "/write?db=default", lines).status == 204
        document = {
            "name": "a job with a rather long name " * 3,
            "tags": ["nightly"],
            "tasks": [{"name": "a", "run": "exit 1"}],
        }
        job = connection.request("POST", "/jobs", document).json()["id"]
        path = "/api/unstable/actions/schedule/agent.replicante.io/test.success"
        action = connection.request("POST", path, "null").json()["id"]
    return [page.format(job=job, action=action) for page in PAGES]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("axe")
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--silent",
        "--prefix",
        str(folder),
        AXE,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {AXE}: {done.stderr[-500:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


def visit(tab: Page, where: str) -> None:
    """Load a page and wait until it has what it asked for."""
    tab.goto("about:blank")  # another part of the same address would not be a load
    tab.goto(f"/#/{where}")
    expect(tab.locator("main h1").first).to_be_visible()
    tab.wait_for_load_state("networkidle")


def findings(tab: Page, source: str) -> list[dict[str, Any]]:
    tab.evaluate(source)
    found: dict[str, Any] = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"], "axe looked at nothing"
    return [
        {"rule": each["id"], "where": [node["html"][:200] for node in each["nodes"]]}
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def test_every_page_has_no_serious_finding_and_fits_every_screen(open_tab: Opener, pages: list[str], axe: str) -> None:
    tab = open_tab()
    found, wide = {}, {}
    for where in pages:
        tab.set_viewport_size(DESKTOP)
        visit(tab, where)
        if where.startswith("metrics?"):
            tab.get_by_role("button", name="Chart").click()
        for theme in ("light", "dark"):
            tab.emulate_media(color_scheme=theme)
            if serious := findings(tab, axe):
                found[where, theme] = serious
        for size in (TABLET, PHONE, NARROW):
            tab.set_viewport_size(size)
            beyond = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if beyond > 0:
                wide[where, size["width"]] = beyond
    assert found == {}
    assert wide == {}


def test_axe_has_no_serious_finding_in_dialogs(open_tab: Opener, axe: str) -> None:
    tab = open_tab(None)
    tab.goto("/")
    expect(tab.get_by_role("dialog")).to_be_visible()
    assert findings(tab, axe) == []

    tab = open_tab()
    for where, name in (("system/tokens", "New token"), ("fleet", "Enrol a machine")):
        visit(tab, where)
        tab.get_by_role("button", name=name).click()
        assert findings(tab, axe) == []
        tab.keyboard.press("Escape")


def test_the_keyboard_gets_everywhere(open_tab: Opener) -> None:
    tab = open_tab()
    visit(tab, "jobs")

    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to content")).to_be_focused()
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")

    expect(tab.get_by_role("heading", name="Metrics", level=1)).to_be_visible()
    expect(tab.locator("main")).to_be_focused()
    sql = tab.get_by_role("textbox", name="SQL")
    sql.fill("SELECT 1")
    sql.press("Tab")
    expect(sql).not_to_be_focused()


def test_a_dialog_keeps_the_focus_and_escape_leaves_it(open_tab: Opener) -> None:
    tab = open_tab()
    visit(tab, "system/tokens")
    opener = tab.get_by_role("button", name="New token")
    opener.press("Enter")
    expect(tab.get_by_role("dialog").get_by_label("Name")).to_be_focused()

    tab.keyboard.press("Escape")

    expect(tab.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()


def test_the_sign_in_cannot_be_dismissed(open_tab: Opener) -> None:
    tab = open_tab(None)
    tab.goto("/")
    dialog = tab.get_by_role("dialog", name=re.compile("Sign in"))
    expect(dialog).to_be_visible()

    for _ in range(3):
        tab.keyboard.press("Escape")

    expect(dialog).to_be_visible()
