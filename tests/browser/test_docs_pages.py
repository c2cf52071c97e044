"""Swagger UI and ReDoc in a real browser that reaches nothing but the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.server import TOKEN, ArcServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    with ArcServer(tmp_path_factory.mktemp("browser") / "data") as started:
        with started.connect() as connection:
            assert (
                connection.write({"m": "cpu", "t": 1697472000000, "h": "server01", "fields": {"usage": 45.2}}).status
                == 204
            )
        yield started


@pytest.fixture
def page(open_tab: Callable[..., Page]) -> Page:
    return open_tab(None)


def test_swagger_ui_runs_a_query_with_the_token_it_was_given(page: Page) -> None:
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".dialog-ux")
    dialog.get_by_label("auth-bearer-value").fill(TOKEN)
    dialog.get_by_label("Apply credentials").first.click()
    dialog.get_by_role("button", name="Close").first.click()

    operation = page.locator("#operations-Querying-query")
    operation.locator(".opblock-summary-control").click()
    example = operation.locator(".body-param__example").inner_text()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("textarea").first.fill(json.dumps({"sql": "SELECT host, usage FROM cpu"}))
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .highlight-code code").first

    answer.wait_for()
    assert "SELECT * FROM cpu" in example
    status = operation.locator(".live-responses-table .response .response-col_status").first
    assert status.inner_text().strip().startswith("200")
    assert json.loads(answer.inner_text())["data"] == [["server01", 45.2]]


def test_swagger_ui_shows_that_a_token_is_missing(page: Page) -> None:
    page.goto("/docs")

    operation = page.locator("#operations-Tokens-list_tokens")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()

    assert operation.locator(".authorization__btn").get_attribute("aria-label") == "authorization button unlocked"


def test_redoc_searches_and_shows_samples_in_four_languages(page: Page) -> None:
    page.goto("/redoc")
    page.get_by_role("heading", name="Rotate token").first.wait_for()

    for language in ("curl", "Python", "JavaScript", "Go"):
        assert page.get_by_role("tab", name=language, exact=True).count() > 10
    page.get_by_placeholder("Search...").fill("rotate")
    found = page.locator('[data-role="search:results"]')
    found.get_by_text("Rotate token").first.wait_for()


def test_redoc_hands_out_the_document(page: Page, server: ArcServer) -> None:
    page.goto("/redoc")
    link = page.get_by_role("link", name="Download", exact=True)
    link.wait_for()

    with page.expect_download() as download:
        link.click()

    document = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert document["openapi"].startswith("3.0.")
    assert "/query" in document["paths"]
