"""The dashboard in a real browser: jobs that run, a machine with a real agent, actions of the server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import no_markup
from tests.integration.agents import Edge
from tests.integration.server import ArcServer, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.conftest import Watch

MACHINE = "press-07"
MARKUP = "<img src=x onerror=alert(1)>"
GATED = """\
name: {name}
tasks:
  - name: wait for the gate
    run: "echo first; while [ ! -e {gate} ]; do sleep 0.05; done; echo second"
  - name: say goodbye
    var: word
    run: echo bye; echo -n done > "$ARC_OUTPUT"
output: "{{{{ tasks.word }}}}"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArcServer]:
    options = {"actions.interval_s": "0.1"}
    with ArcServer(tmp_path_factory.mktemp("dashboard") / "data", options) as started:
        yield started


@pytest.fixture(scope="module")
def machine(server: ArcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A machine with an agent that is online."""
    edge = Edge(server, tmp_path_factory.mktemp("machines"), MACHINE)
    with server.connect() as admin:
        edge.enrol(admin).start()
        wait_until(lambda: admin.request("GET", f"/api/v1/agents/{MACHINE}").status == 200, "the agent registers")
        assert admin.request("POST", f"/api/v1/agents/{MACHINE}/tags", {"site": "north"}).status == 204
    yield edge
    edge.end()


def submit(server: ArcServer, document: str) -> str:
    """The id of a new job."""
    with server.connect() as connection:
        answer = connection.request("POST", "/jobs", document, {"Content-Type": "text/yaml"})
    assert answer.status == 200, answer.body
    job_id: str = answer.json()["id"]
    return job_id


def job_state(page: Page) -> str:
    return page.locator(".head .state").first.inner_text()


def test_a_submitted_job_is_followed_to_its_end(page: Page, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    page.goto("/#/jobs")
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    page.get_by_role("link", name="New job").click()
    page.get_by_role("textbox", name="Job document").fill(GATED.format(name="my job", gate=gate))
    page.get_by_role("button", name="Submit").click()

    log = page.get_by_role("log")
    expect(log).to_have_text("first\n")
    expect(page.locator(".head .state")).to_have_text("Running")
    expect(page.get_by_role("row").filter(has_text="say goodbye")).to_contain_text("To come")
    gate.touch()

    expect(log).to_have_text("first\nsecond\nbye\n")
    expect(page.locator(".head .state")).to_have_text("Completed")
    expect(page.get_by_role("img", name=re.compile("^wait for the gate: "))).to_be_visible()
    expect(page.locator("dd").filter(has_text=re.compile("^done$"))).to_be_visible()
    page.get_by_role("button", name="Log of say goodbye").click()
    expect(log).to_have_text("bye\n")


def test_an_error_of_a_document_is_shown_at_its_line(page: Page, watch: Watch) -> None:
    watch.refusals.add(400)
    page.goto("/#/jobs/new")
    page.get_by_role("textbox", name="Job document").fill("name: x\ntasks:\n  - name: y\n    nosuch: 1\n    run: a\n")

    page.get_by_role("button", name="Submit").click()

    expect(page.get_by_role("alert")).to_contain_text("line 4: tasks[0].nosuch: unknown field")
    expect(page.locator(".numbers .wrong")).to_have_text("4")


def test_a_job_is_cancelled_and_restarted(page: Page, server: ArcServer, tmp_path: Path) -> None:
    job_id = submit(server, GATED.format(name="stubborn", gate=tmp_path / "gate"))
    page.goto(f"/#/jobs/{job_id}")
    page.get_by_role("button", name="Cancel stubborn").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".head .state")).to_have_text("Cancelled")

    (tmp_path / "gate").touch()
    page.get_by_role("button", name="Restart stubborn").click()

    expect(page.locator(".head .state")).to_have_text("Completed")


def test_a_job_runs_again_with_changes(page: Page, server: ArcServer) -> None:
    document = (
        "name: 'again: yes'\ninputs: {n: '1'}\ntasks:\n  - name: a\n    run: |\n      echo one\n\n      echo two\n"
    )
    page.goto(f"/#/jobs/{submit(server, document)}")
    page.get_by_role("link", name="Run again with changes").click()
    editor = page.get_by_role("textbox", name="Job document")
    expect(editor).to_have_value(
        'name: "again: yes"\ninputs:\n  "n": "1"\ntasks:\n  - name: a\n    run: |\n      echo one\n\n      echo two\n'
    )

    editor.fill(editor.input_value().replace("echo two", "echo three"))
    editor.press("Control+Enter")

    expect(page.get_by_role("log")).to_have_text("one\nthree\n")


def test_texts_of_others_stay_texts(page: Page, server: ArcServer) -> None:
    job_id = submit(
        server, f"name: '{MARKUP}'\ntags: ['{MARKUP}']\ntasks: [{{name: '{MARKUP}', run: 'echo \"{MARKUP}\"; exit 1'}}]"
    )
    with no_markup(page):
        page.goto(f"/#/jobs/{job_id}")
        expect(page.get_by_role("log")).to_have_text(f"{MARKUP}\n")
        expect(page.get_by_role("heading", level=1)).to_have_text(MARKUP)
        page.goto("/#/jobs")
        expect(page.get_by_role("link", name=MARKUP)).to_be_visible()
        page.goto("/#/overview")
        expect(page.locator("main").get_by_role("link", name=MARKUP)).to_be_visible()


def test_the_list_is_searched_by_words_and_state_and_a_reload_keeps_it(page: Page, server: ArcServer) -> None:
    failing = submit(server, "name: fragile flask\ntasks: [{name: a, run: exit 1}]")
    submit(server, "name: sturdy flask\ntasks: [{name: a, run: exit 0}]")
    with server.connect() as connection:
        wait_until(
            lambda: connection.request("GET", f"/jobs/{failing}").json()["state"] == "FAILED", "the fragile job fails"
        )
    page.goto("/#/jobs")
    page.get_by_label("Search").fill("flask")
    names = page.get_by_role("region", name="Jobs").get_by_role("link")
    expect(names).to_have_text(["sturdy flask", "fragile flask"])
    page.get_by_label("State").select_option("FAILED")
    expect(names).to_have_text(["fragile flask"])

    page.reload()

    expect(names).to_have_text(["fragile flask"])
    expect(page.get_by_label("Search")).to_have_value("flask")


def test_queues_and_nodes_are_shown(page: Page) -> None:
    page.goto("/#/jobs/queues")

    expect(page.get_by_role("region", name="Queues").get_by_role("row").filter(has_text="default")).to_be_visible()
    expect(page.get_by_role("region", name="Nodes")).to_contain_text("Worker")


def test_machines_are_filtered(page: Page, machine: Edge, watch: Watch) -> None:
    watch.refusals.add(400)
    page.goto("/#/fleet")
    row = page.get_by_role("row").filter(has_text=MACHINE)
    expect(row).to_contain_text("Online")
    box = page.get_by_role("searchbox")

    box.fill('site = "south"')
    box.press("Enter")
    expect(page.get_by_text("No machine fits the filter.")).to_be_visible()
    box.fill('@os = "linux" AND site = "north"')
    box.press("Enter")
    expect(row).to_be_visible()
    box.fill("site =")
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("syntax error")


def test_a_command_runs_on_a_machine_and_its_output_grows(page: Page, machine: Edge, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    page.goto(f"/#/fleet/machine/{MACHINE}")
    page.get_by_label("Input").fill(f"echo before; while [ ! -e {gate} ]; do sleep 0.05; done; echo after; exit 3")
    page.get_by_role("button", name="Run", exact=True).click()
    output = page.get_by_role("log")
    expect(output).to_have_text("before\n")

    gate.touch()

    expect(output).to_contain_text("before\nafter\n")
    expect(page.locator(".head .state")).to_have_text("Failed")
    expect(page.locator("dd").filter(has_text=re.compile("^3$"))).to_be_visible()
    page.goto("/#/fleet/runs")
    expect(page.get_by_role("row").filter(has_text="echo before")).to_contain_text("Failed")


def test_tags_are_edited_in_place(page: Page, machine: Edge) -> None:
    page.goto(f"/#/fleet/machine/{MACHINE}")
    page.get_by_label("Tag site", exact=True).fill("south")
    page.get_by_label("Tag site", exact=True).press("Enter")
    expect(page.get_by_text("Tag saved")).to_be_visible()

    page.get_by_label("New tag").fill("line")
    page.get_by_label("Value").fill("4")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_label("Tag line", exact=True)).to_have_value("4")
    page.get_by_role("button", name="Remove tag line").click()

    expect(page.get_by_label("Tag line", exact=True)).to_have_count(0)
    expect(page.get_by_label("Tag site", exact=True)).to_have_value("south")
    page.get_by_label("Tag site", exact=True).fill("north")
    page.get_by_label("Tag site", exact=True).blur()


def test_enrolment_shows_the_line_to_run(page: Page, server: ArcServer, tmp_path: Path) -> None:
    page.goto("/#/fleet")
    page.get_by_role("button", name="Enrol a machine").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of the machine").fill("oven-03")
    dialog.get_by_role("button", name="Make the command").click()

    line = dialog.get_by_label("Command that enrols a machine").inner_text()

    secret = re.search("--enrolment-token (\\S+)", line)
    assert secret
    assert f"{server.url}/api/v1/agents/program" in line
    done = Edge(server, tmp_path, "oven-03").command(
        "init", "--server", server.url, "--enrolment-token", secret[1], "--identity", "oven-03"
    )
    assert done.returncode == 0, done.stderr


def test_an_action_is_scheduled_with_a_form_and_followed(page: Page) -> None:
    page.goto("/#/actions")
    expect(page.get_by_text("Nothing waits.")).to_be_visible()
    page.get_by_role("link", name="Schedule an action").first.click()
    page.get_by_label("Kind").select_option("agent.replicante.io/test.ping")
    page.get_by_label("count").fill("3")
    page.get_by_role("button", name="Schedule").click()

    expect(page.locator(".head .state")).to_have_text("Done")
    expect(page.locator(".timeline .state")).to_have_text(["Done", "Running", "Running", "New"])
    page.goto("/#/actions")
    expect(page.get_by_role("region", name="Finished actions")).to_contain_text("test.ping")


def test_a_waiting_action_is_cancelled(page: Page, server: ArcServer) -> None:
    with server.connect() as connection:
        path = "/api/unstable/actions/schedule/agent.replicante.io/"
        connection.request("POST", path + "test.ping", {"count": 1000})
        waiting = connection.request("POST", path + "test.ping", {"count": 1}).json()["id"]
    page.goto(f"/#/actions/{waiting}")

    page.get_by_role("button", name="Cancel").click()

    expect(page.locator(".head .state")).to_have_text("Failed")
    expect(page.locator(".timeline")).to_contain_text("Cancelled")
