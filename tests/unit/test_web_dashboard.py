"""Serving the dashboard: who gets the page, how files are kept, what the page may do, what a session says."""

from __future__ import annotations

import gzip
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arc.web import dashboard
from tests.unit.web import ADMIN, WebApp

if TYPE_CHECKING:
    from collections.abc import Iterator

STATIC = Path(__file__).parents[2] / "static"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
MAX_BYTES = 150_000  # of all files, compressed


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebApp]:
    with WebApp(tmp_path) as app:
        yield app


def test_browsers_get_the_page_and_programs_json(web: WebApp) -> None:
    page = web.client.get("/", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert "Accept" in page.headers["Vary"]

    for accept in ("*/*", "application/json", "application/json, text/html;q=0.5", ""):
        assert web.client.get("/", headers={"Accept": accept}).get_json()["service"] == "Arc Core"


def test_the_page_tells_whether_a_token_is_needed(web: WebApp, tmp_path: Path) -> None:
    assert web.client.get("/").get_json()["auth"] is True
    (tmp_path / "open").mkdir()
    with WebApp(tmp_path / "open", **{"auth.enabled": "false"}) as everybody:
        assert everybody.client.get("/").get_json()["auth"] is False
        assert everybody.client.get("/api/v1/session").get_json()["name"] == "anonymous"


def test_the_page_may_run_only_scripts_of_its_own(web: WebApp) -> None:
    policies = web.client.get("/", headers=BROWSER).headers.getlist("Content-Security-Policy")

    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "script-src 'self';" in policies[0]
    assert "style-src 'self';" in policies[0]
    assert "require-trusted-types-for 'script'" in policies[0]
    assert "unsafe" not in policies[0]


def test_files_are_asked_for_again_and_not_sent_again(web: WebApp) -> None:
    first = web.client.get("/static/main.js")
    again = web.client.get("/static/main.js", headers={"If-None-Match": first.headers["ETag"]})
    packed = web.client.get("/static/main.js", headers={"Accept-Encoding": "gzip"})

    assert (first.mimetype, first.headers["Cache-Control"]) == ("text/javascript", "no-cache")
    assert (again.status_code, again.data) == (304, b"")
    assert gzip.decompress(packed.data) == first.data


@pytest.mark.parametrize("name", ["nosuch.js", "..%2fsetup.cfg", ".hidden", "%2fetc%2fpasswd", "%00"])
def test_nothing_but_the_files_of_the_dashboard_is_served(web: WebApp, name: str) -> None:
    assert web.client.get(f"/static/{name}", headers=ADMIN).status_code == 404


def test_a_session_says_what_a_token_may_do(web: WebApp) -> None:
    reader = web.client.get("/api/v1/session", headers=web.token("read")).get_json()
    admin = web.client.get("/api/v1/session", headers=ADMIN).get_json()

    assert (reader["name"], reader["permissions"]) == ("only-read", ["read"])
    assert admin["permissions"] == ["read", "write", "delete", "admin"]
    assert admin["surfaces"] == ["metrics", "jobs", "fleet"]  # there is no engine of actions in this test


def test_a_surface_that_is_switched_off_is_not_named(tmp_path: Path) -> None:
    with WebApp(tmp_path, **{"jobs.enabled": "false"}) as web:
        assert "jobs" not in web.client.get("/api/v1/session", headers=ADMIN).get_json()["surfaces"]


def test_the_configuration_is_for_admins_and_hides_secrets(tmp_path: Path) -> None:
    with WebApp(tmp_path, **{"jobs.encryption_key": "a passphrase of mine", "server.port": "9000"}) as web:
        answer = web.client.get("/api/v1/configuration", headers=ADMIN)
        assert web.client.get("/api/v1/configuration", headers=web.token("read", "write")).status_code == 403

    options = {f"{option['section']}.{option['name']}": option for option in answer.get_json()["options"]}
    assert "a passphrase of mine" not in answer.text
    assert (options["server.port"]["value"], options["server.port"]["is_default"]) == ("9000", False)
    assert options["server.host"]["is_default"]


def test_everything_together_is_small() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 1)) for path in STATIC.iterdir()}

    assert sum(sizes.values()) < MAX_BYTES, sizes


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_scripts_build_nodes_and_say_what_they_are_for(path: Path) -> None:
    source = path.read_text("utf-8")

    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://(?!www\.w3\.org/)"
    assert not re.search(forbidden, source)
    assert source.startswith(("/**", "//"))


class _Links(HTMLParser):
    """What a page refers to, and whatever stands inline."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [value for name in ("src", "href") if (value := given.get(name))]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_the_page_refers_only_to_what_is_there(web: WebApp) -> None:
    page = _Links()
    page.feed((STATIC / "index.html").read_text("utf-8"))

    assert page.inline == []
    for link in page.links:
        assert link.startswith(("#", "/")), link
        assert link.startswith("#") or web.client.get(link).status_code == 200, link


def test_modules_import_only_what_is_there() -> None:
    for path in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', path.read_text("utf-8")):
            assert (STATIC / name).is_file(), f"{path.name}: {name}"


def test_the_files_are_found_beside_the_package_also_in_a_zipapp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "arc.pyz", "w") as archive:
        archive.writestr("arc/__init__.py", "")
        archive.write(STATIC / "index.html", "static/index.html")
    package = zipfile.Path(tmp_path / "arc.pyz", "arc/")
    monkeypatch.setattr(dashboard, "files", lambda name: package)

    found = dashboard._directory.__wrapped__()

    assert found is not None
    assert (found / "index.html").read_bytes() == (STATIC / "index.html").read_bytes()
    package.root.close()


def test_what_an_open_dashboard_reads_fills_no_log(web: WebApp, caplog: pytest.LogCaptureFixture) -> None:
    live = ADMIN | {"X-Arc-Live": "1"}
    with caplog.at_level("INFO", "arc.web.application"):
        web.client.get("/static/main.js")
        web.client.get("/api/v1/session", headers=live)
        assert caplog.messages == []

        web.client.get("/api/v1/session", headers=ADMIN)
        web.client.get("/api/v1/session", headers={"X-Arc-Live": "1"})  # refused
        web.client.post("/auth/tokens/1/rotate", headers=live)

    assert caplog.messages == ["GET /api/v1/session", "GET /api/v1/session", "POST /auth/tokens/1/rotate"]
