"""The dashboard in a real browser: sign-in, metrics, tokens, and what a token without permissions sees."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from playwright.sync_api import Page, Route, expect

from tests.integration.server import TOKEN, ArcServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.browser.conftest import Watch

    Opener = Callable[..., Page]

HOSTS = ("press-01", "oven-07")
MINUTES = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    with ArcServer(tmp_path_factory.mktemp("dashboard") / "data", {"jobs.enabled": "false"}) as started:
        now_s = int(time.time())
        lines = [
            f"cpu,host={host} usage={minute}.5 {(now_s - 60 * minute) * 10**9}"
            for host in HOSTS
            for minute in range(MINUTES)
        ]
        with started.connect() as connection:
            assert connection.request("POST", "/write?db=default", "\n".join(lines)).status == 204
        yield started


def make_token(server: ArcServer, name: str, *permissions: str) -> tuple[int, str]:
    """Number and secret."""
    with server.connect() as connection:
        made = connection.request("POST", "/auth/tokens", {"name": name, "permissions": list(permissions)}).json()
    return made["id"], made["token"]


def revoke(server: ArcServer, number: int) -> None:
    with server.connect() as connection:
        assert connection.request("POST", f"/auth/tokens/{number}/revoke").status == 200


def sign_in(tab: Page, secret: str = TOKEN, *, remember: bool = False) -> None:
    dialog = tab.get_by_role("dialog")
    dialog.get_by_label("Token", exact=True).fill(secret)
    if remember:
        dialog.get_by_label("Remember on this computer").check()
    dialog.get_by_role("button", name="Sign in").click()


def heading(tab: Page, name: str) -> None:
    expect(tab.get_by_role("heading", name=name, level=1)).to_be_visible()


def ask(tab: Page, sql: str) -> None:
    tab.get_by_role("textbox", name="SQL").fill(sql)
    tab.get_by_role("button", name="Run", exact=True).click()


def test_a_wrong_token_is_refused_in_the_words_of_the_server(open_tab: Opener, watch: Watch) -> None:
    watch.refusals.add(401)
    tab = open_tab(None)
    tab.goto("/")

    sign_in(tab, "nonsense")

    expect(tab.get_by_role("alert")).to_contain_text("token")
    expect(tab.get_by_role("dialog")).to_be_visible()


def test_signing_in_lasts_for_the_tab_and_reload_keeps_the_page(open_tab: Opener) -> None:
    tab = open_tab(None)
    tab.goto("/#/metrics/upkeep")
    sign_in(tab)
    heading(tab, "Metrics")

    tab.reload()

    expect(tab.get_by_role("link", name="Compaction and retention")).to_have_attribute("aria-current", "page")
    other = tab.context.new_page()
    other.goto("/")
    expect(other.get_by_role("dialog")).to_be_visible()


def test_a_remembered_token_serves_other_tabs_until_sign_out(open_tab: Opener) -> None:
    tab = open_tab(None)
    tab.goto("/")
    sign_in(tab, remember=True)
    heading(tab, "Overview")

    other = tab.context.new_page()
    other.goto("/")
    heading(other, "Overview")
    other.get_by_role("button", name="Sign out").click()

    expect(other.get_by_role("dialog")).to_be_visible()
    assert other.evaluate("localStorage.getItem('arc.token')") is None


def test_a_token_that_dies_brings_the_sign_in_over_the_page(open_tab: Opener, server: ArcServer, watch: Watch) -> None:
    watch.refusals.add(401)
    number, secret = make_token(server, "short-lived", "read")
    tab = open_tab(None)
    tab.goto("/#/metrics")
    sign_in(tab, secret)
    tab.get_by_role("textbox", name="SQL").fill("SELECT 42 AS answer")

    def dies(route: Route) -> None:  # with the query and not before: what is polled would notice first
        revoke(server, number)
        route.continue_()

    tab.route("**/query/stream", dies, times=1)
    tab.get_by_role("button", name="Run", exact=True).click()
    sign_in(tab, make_token(server, "another", "read")[1])

    expect(tab.get_by_role("cell", name="42")).to_be_visible()
    expect(tab.get_by_role("textbox", name="SQL")).to_have_value("SELECT 42 AS answer")


def test_the_overview_shows_what_there_is(page: Page) -> None:
    page.goto("/")

    expect(page.get_by_role("link", name=re.compile("^Rows stored"))).to_contain_text(str(MINUTES * len(HOSTS)))
    expect(page.get_by_role("link", name=re.compile("^Machines"))).to_contain_text("0 / 0")
    expect(page.get_by_text("Nothing has failed.")).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages of the dashboard")).not_to_contain_text("Jobs")


def test_nothing_is_asked_while_the_tab_is_hidden(page: Page) -> None:
    page.clock.install()
    page.goto("/")
    expect(page.get_by_role("link", name=re.compile("^Rows stored"))).to_be_visible()
    page.wait_for_load_state("networkidle")
    hide = (
        "is => { Object.defineProperty(document, 'hidden', {value: is, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')) }"
    )
    asked: list[str] = []
    page.evaluate(hide, True)
    page.on("request", lambda request: asked.append(request.url))

    page.clock.run_for(120_000)
    assert asked == []

    with page.expect_request("**/api/v1/metrics"):
        page.evaluate(hide, False)


def test_a_query_gives_a_table_and_a_chart(page: Page) -> None:
    page.goto("/#/metrics")
    ask(page, "SELECT time, host, usage FROM cpu ORDER BY time")
    expect(page.get_by_role("region", name="Rows").get_by_role("row")).to_have_count(1 + MINUTES * len(HOSTS))

    page.get_by_role("button", name="Chart").click()

    chart = page.get_by_role("img", name="usage over time")
    expect(chart.locator("path.line")).to_have_count(len(HOSTS))
    page.get_by_role("button", name="oven-07").click()
    expect(chart.locator("path.line")).to_have_count(1)
    chart.press("ArrowLeft")
    expect(page.locator(".result .tip")).to_contain_text("press-01")
    chart.press("+")
    page.get_by_role("button", name="Whole time").click()
    expect(page.get_by_role("button", name="Whole time")).to_be_hidden()


def test_a_result_is_there_again_after_a_reload_and_in_the_history(page: Page) -> None:
    page.goto("/#/metrics")
    ask(page, "SELECT count(*) AS n FROM cpu")
    expect(page.get_by_role("cell", name=str(MINUTES * len(HOSTS)))).to_be_visible()

    page.reload()

    expect(page.get_by_role("cell", name=str(MINUTES * len(HOSTS)))).to_be_visible()
    ask(page, "SELECT 1 AS one")
    page.get_by_label("Earlier queries").select_option(index=2)
    expect(page.get_by_role("textbox", name="SQL")).to_have_value("SELECT count(*) AS n FROM cpu")


def test_a_large_result_comes_in_pages(page: Page) -> None:
    page.goto("/#/metrics")
    ask(page, "SELECT i, i * 2 AS twice FROM range(100000) AS r(i)")
    rows = page.get_by_role("region", name="Rows").get_by_role("row")

    expect(page.get_by_text("100,000 rows in")).to_be_visible()
    expect(rows).to_have_count(101)
    page.get_by_role("button", name="Next").click()
    expect(rows.nth(1)).to_contain_text("100")


def test_an_error_says_what_the_server_said(page: Page, watch: Watch) -> None:
    watch.refusals.add(400)
    page.goto("/#/metrics")

    ask(page, "SELECT nosuch FROM cpu")

    expect(page.get_by_role("alert")).to_contain_text("nosuch")


def test_results_can_be_taken_away(page: Page) -> None:
    page.goto("/#/metrics")
    page.get_by_role("textbox", name="SQL").fill("SELECT 7 AS n")
    with page.expect_download() as csv:
        page.get_by_role("button", name="Download as CSV").click()
    with page.expect_download() as arrow:
        page.get_by_role("button", name="Download as Arrow").click()

    assert Path(csv.value.path()).read_bytes() == b"n\r\n7\r\n"
    with pa.ipc.open_stream(Path(arrow.value.path()).read_bytes()) as reader:
        assert reader.read_all().to_pylist() == [{"n": 7}]


def test_the_editor_completes_names_with_the_keyboard(page: Page) -> None:
    page.goto("/#/metrics")
    sql = page.get_by_role("textbox", name="SQL")
    sql.fill("")

    sql.press_sequentially("SELECT us")
    expect(page.get_by_role("option", name="usage")).to_be_visible()
    sql.press("Enter")
    sql.press_sequentially(" FROM default.c")
    expect(page.get_by_role("option", name="cpu")).to_be_visible()
    sql.press("Tab")

    expect(sql).to_have_value("SELECT usage FROM default.cpu")


def test_running_queries_are_listed_and_cancelled(page: Page, server: ArcServer) -> None:
    page.goto("/#/metrics/queries")
    expect(page.get_by_text("No query runs now.")).to_be_visible()
    endless = "SELECT count(*) FROM range(1000000000) a, range(1000000) b WHERE a.range + b.range = 7"
    with server.connect() as connection:
        connection.send("POST", "/query", {"sql": endless})
        page.get_by_role("row").filter(has_text="range(1000000000)").get_by_role("button", name="Cancel").click()
        assert connection.receive().status == 409

    expect(page.get_by_role("region", name="Past queries")).to_contain_text("Cancelled")


def test_upkeep_shows_how_it_stands(page: Page) -> None:
    page.goto("/#/metrics/upkeep")

    expect(page.get_by_text("No policy: rows stay for ever.")).to_be_visible()
    page.get_by_role("button", name="Flush now").click()
    expect(page.get_by_role("status").filter(has_text="Buffered rows")).to_be_visible()


def test_tokens_are_made_rotated_and_revoked(page: Page, server: ArcServer) -> None:
    page.goto("/#/system/tokens")
    page.get_by_role("button", name="New token").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("telegraf")
    dialog.get_by_label("write metrics").check()
    dialog.get_by_role("button", name="Create").click()
    first = dialog.get_by_label("Secret of the token").inner_text()
    dialog.get_by_role("button", name="Done").click()

    page.get_by_role("button", name="Rotate telegraf").click()
    dialog.get_by_role("button", name="Rotate").click()
    second = dialog.get_by_label("Secret of the token").inner_text()
    dialog.get_by_role("button", name="Done").click()

    assert statuses(server, first, second) == [401, 200]
    page.get_by_role("button", name="Revoke telegraf").click()
    dialog.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row").filter(has_text="telegraf")).to_contain_text("Revoked")
    assert statuses(server, second) == [401]


def statuses(server: ArcServer, *secrets: str) -> list[int]:
    found = []
    for secret in secrets:
        with server.connect(secret) as connection:
            found.append(connection.request("GET", "/auth/verify").status)
    return found


def test_the_configuration_in_force_hides_secrets(page: Page) -> None:
    page.goto("/#/system/configuration")
    page.get_by_label("Search").fill("bootstrap_token")

    row = page.get_by_role("row").filter(has_text="[auth] bootstrap_token")
    expect(row).to_contain_text("********")
    expect(page.locator("main")).not_to_contain_text(TOKEN)
    page.get_by_label("Search").fill("")
    page.get_by_label("Only what was changed").check()
    expect(page.get_by_role("row").filter(has_text="[server] port")).to_contain_text(
        page.url.split(":")[2].split("/")[0]
    )


def test_the_log_of_the_server_is_shown_by_level(page: Page) -> None:
    page.goto("/#/system/logs")
    expect(page.get_by_role("region", name="Log")).to_contain_text("POST /write")

    page.get_by_label("Least level").select_option("ERROR")

    expect(page.get_by_text("No record in the last hour.")).to_be_visible()
    expect(page).to_have_url(re.compile("level=ERROR"))


def test_a_theme_stays(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Dark theme").click()

    page.reload()

    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()


def test_a_token_that_may_only_read_sees_no_controls_it_cannot_use(open_tab: Opener, server: ArcServer) -> None:
    tab = open_tab(make_token(server, "reader", "read")[1])
    allowed = {"Run", "CSV", "Arrow", "Latest rows", "Filter", "Cancel"}  # Cancel: of its own queries

    for where in ("metrics", "metrics/upkeep", "fleet", "fleet/runs", "actions", "actions/new", "system"):
        tab.goto("about:blank")
        tab.goto(f"/#/{where}")
        expect(tab.locator("main h1")).to_be_visible()
        tab.wait_for_load_state("networkidle")
        shown = {text.strip() for text in tab.locator("main button:visible").all_inner_texts()}
        assert shown <= allowed, where
    expect(tab.get_by_role("link", name="Tokens")).to_have_count(0)
    expect(tab.get_by_role("link", name="Schedule an action")).to_have_count(0)


def test_a_token_that_may_only_write_gets_along(open_tab: Opener, server: ArcServer) -> None:
    tab = open_tab(make_token(server, "writer", "write")[1])
    tab.goto("/")

    expect(tab.get_by_text("rows since start")).to_be_visible()
    expect(tab.get_by_role("navigation", name="Pages of the dashboard").get_by_role("link")).to_have_text(
        ["Overview", "System"]
    )
