"""A real browser for the tests in this folder: Debian's Chromium, which reaches nothing but the server of the test."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.server import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route

    from tests.integration.server import ArcServer

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1400, "height": 1000}
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


@dataclass
class Watch:
    """What a tab did that it must not: at the end of a test all three are empty.

    refusals: statuses of answers that the test provokes, which every browser reports as errors.
    """

    origin: str
    refusals: set[int] = field(default_factory=set)
    elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def request(self, request: Request) -> None:
        if not request.url.startswith((self.origin + "/", f"blob:{self.origin}/", "data:")):
            self.elsewhere.append(request.url)

    def route(self, route: Route) -> None:
        if route.request.url.startswith(self.origin + "/"):
            route.continue_()
        else:
            route.abort()

    def console(self, message: ConsoleMessage) -> None:
        refused = _REFUSED.match(message.text)
        is_expected = refused is not None and int(refused[1]) in self.refusals
        if message.type in ("error", "warning") and not is_expected:
            self.complaints.append(message.text)

    def page(self, tab: Page) -> None:
        tab.on("request", self.request)
        tab.on("console", self.console)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))

    def check(self) -> None:
        assert self.elsewhere == []
        assert self.complaints == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        yield started
        started.close()


@pytest.fixture
def watch(server: ArcServer) -> Iterator[Watch]:
    """The watch over all tabs of a test."""
    made = Watch(server.url)
    yield made
    made.check()


@pytest.fixture
def open_tab(browser: Browser, watch: Watch) -> Iterator[Callable[..., Page]]:
    """`open_tab(token, **options of a browser context)`: a tab of its own browser, signed in unless token is None."""
    opened = []

    def opener(token: str | None = TOKEN, **options: Any) -> Page:
        context = browser.new_context(**{"base_url": watch.origin, "viewport": DESKTOP, **options})
        opened.append(context)
        context.set_default_timeout(15_000)
        context.route("**/*", watch.route)
        context.on("page", watch.page)
        if token:
            # An empty tab has no storage.
            context.add_init_script(f"if (location.host) sessionStorage.setItem('arc.token', {token!r})")
        return context.new_page()

    yield opener
    for context in opened:
        context.close()


@pytest.fixture
def page(open_tab: Callable[..., Page]) -> Page:
    """A tab that is signed in as admin."""
    return open_tab()


@contextmanager
def no_markup(tab: Page) -> Iterator[None]:
    """Within it nothing may pop up and no element may come out of a text."""
    popped: list[str] = []
    tab.on("dialog", lambda dialog: popped.append(dialog.message))
    yield
    assert popped == []
    assert tab.locator("main img").count() == 0
