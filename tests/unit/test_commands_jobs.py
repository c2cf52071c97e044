"""The commands of `python arc.py job`, over a server that answers what the test says."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest

from arc.cli import main
from arc.commands import client, jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ID = "5f0c2b7e9d3a4c1b8e6f7a2d4c9b1e30"
TIMES = {"createdAt": "2025-10-19T12:00:00.25Z", "startedAt": "2025-10-19T12:00:00.5Z"}
DONE = {"id": ID, "state": "COMPLETED", **TIMES, "completedAt": "2025-10-19T12:00:02Z", "result": "42"}
RUNNING = {"id": ID, "state": "RUNNING", **TIMES}

Reply = Any  # JSON of the answer, or a function of the request's parameters


class Turns(list[Any]):
    """A reply for each request; the last one stays."""


@dataclass
class Server:
    """Answers by method and path."""

    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(self, method: str, path: str, **more: Any) -> Any:
        self.asked.append((method, path, more))
        reply = self.replies[f"{method} {path}"]
        if isinstance(reply, Turns):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if callable(reply):
            reply = reply(more.get("params", {}))
        if isinstance(reply, Exception):
            raise reply
        return type("Answer", (), {"json": staticmethod(lambda: reply)})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    made = Server()
    monkeypatch.setattr(client, "Client", lambda url, token: made)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`run(*args, status=0)`: standard output and standard error of a command."""

    def command(*args: str, status: int = 0) -> Any:
        assert main(["job", *args]) == status, capsys.readouterr().err
        return capsys.readouterr()

    return command


def log_of(*contents: str) -> Callable[[dict[str, Any]], Any]:
    """Answers pages of a log of these parts, as the server does: newest first."""

    def page(params: dict[str, Any]) -> Any:
        parts = [{"id": str(number), "contents": text} for number, text in enumerate(contents)][::-1]
        first = (params["page"] - 1) * params["size"]
        total_pages = -(-len(parts) // params["size"])
        return {"items": parts[first : first + params["size"]], "totalItems": len(parts), "totalPages": total_pages}

    return page


@pytest.mark.parametrize(
    ("name", "body", "content_type"),
    [
        ("a.yaml", b"name: a", "text/yaml"),
        ("a.YML", b"{}", "text/yaml"),
        ("a.json", b"{}", "application/json"),
        ("a.txt", b' {"name": "a"}', "application/json"),
        ("a", b"name: a", "text/yaml"),
    ],
)
def test_a_submitted_file_is_sent_as_what_it_is(
    server: Server, run: Callable[..., Any], tmp_path: Path, name: str, body: bytes, content_type: str
) -> None:
    server.replies["POST /jobs"] = {"id": ID}
    (tmp_path / name).write_bytes(body)

    assert run("submit", name).out == f"{ID}\n"
    assert server.asked == [("POST", "/jobs", {"data": body, "headers": {"Content-Type": content_type}})]


def test_a_job_comes_from_standard_input(
    server: Server, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.replies["POST /jobs"] = {"id": ID, "state": "PENDING"}
    (tmp_path / "pipe").write_text("name: a")
    with (tmp_path / "pipe").open() as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        assert json.loads(run("submit", "-", "--json").out)["state"] == "PENDING"

    assert server.asked[0][2] == {"data": b"name: a", "headers": {"Content-Type": "text/yaml"}}


def test_faults_of_a_document_stand_at_their_lines(server: Server, run: Callable[..., Any], tmp_path: Path) -> None:
    faults = "line 4: tasks[0].nosuch: unknown field\nline 5, column 3: odd\nKey: 'Job.Name' Error: required"
    server.replies["POST /jobs"] = client.Refused(faults)
    (tmp_path / "a.yaml").touch()

    assert run("submit", "a.yaml", status=1).err.splitlines() == [
        "a.yaml:4: tasks[0].nosuch: unknown field",
        "a.yaml:5:3: odd",
        "a.yaml: Key: 'Job.Name' Error: required",
        "arc: a.yaml was not submitted",
    ]


def test_waiting_prints_the_result(server: Server, run: Callable[..., Any], tmp_path: Path) -> None:
    server.replies = {"POST /jobs": {"id": ID}, f"GET /jobs/{ID}": Turns([RUNNING | {"progress": 50.0}, DONE])}
    (tmp_path / "a.yaml").touch()

    captured = run("submit", "a.yaml", "--wait")

    assert captured.out == "42\n"
    assert captured.err.splitlines()[-1] == f"job {ID} COMPLETED after 1.5 s"


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        ({"state": "FAILED", "error": "exit code 7: no"}, f"arc: job {ID} FAILED: exit code 7: no"),
        ({"state": "CANCELLED"}, f"arc: job {ID} CANCELLED"),
    ],
)
@pytest.mark.parametrize("option", ["--wait", "--follow"])
def test_a_job_that_did_not_complete_is_an_error(
    server: Server, run: Callable[..., Any], tmp_path: Path, option: str, ended: dict[str, str], text: str
) -> None:
    server.replies = {
        "POST /jobs": {"id": ID},
        f"GET /jobs/{ID}": RUNNING | ended,
        f"GET /jobs/{ID}/log": log_of("last words\n"),
    }
    (tmp_path / "a.yaml").touch()

    assert run("submit", "a.yaml", option, status=1).err.splitlines()[-1] == text


def test_following_prints_each_part_once_and_the_last_ones_too(server: Server, run: Callable[..., Any]) -> None:
    many = [f"{number}\n" for number in range(2 * jobs.LOG_PAGE + 1)]
    server.replies = {
        f"GET /jobs/{ID}": Turns([RUNNING, RUNNING, DONE]),
        f"GET /jobs/{ID}/log": Turns([log_of("0\n"), log_of("0\n", "1\n"), log_of(*many)]),
    }

    assert run("log", ID, "-f").out == "".join(many)


def test_a_log_is_printed_oldest_first(server: Server, run: Callable[..., Any]) -> None:
    server.replies[f"GET /jobs/{ID}/log"] = log_of("a\n", "b", "c\n")

    assert run("log", ID).out == "a\nbc\n"


def test_a_list_asks_for_words_tags_and_state(server: Server, run: Callable[..., Any]) -> None:
    found = [DONE | {"name": "failed once"}, {"id": "f" * 32, "state": "FAILED", **TIMES, "name": "x"}]
    server.replies["GET /jobs"] = {"items": found, "totalPages": 1}

    lines = run("list", "-q", "big job", "--tag", "a", "--tag", "b", "--state", "failed").out.splitlines()

    assert server.asked[0][2]["params"]["q"] == "big job tag:a tag:b FAILED"
    assert [line.split()[:3] for line in lines[2:]] == [["f" * 32, "FAILED", "2025-10-19T12:00:00Z"]]


def test_a_list_goes_on_until_it_is_long_enough(server: Server, run: Callable[..., Any]) -> None:
    server.replies["GET /jobs"] = {"items": [DONE] * jobs.LIST_PAGE, "totalPages": 9}

    assert len(json.loads(run("list", "--limit", "30", "--json").out)) == 30
    assert [params["params"]["page"] for _, _, params in server.asked] == [1, 2]


def test_tags_with_blanks_cannot_be_asked_for(server: Server, run: Callable[..., Any]) -> None:
    assert "--tag" in run("list", "--tag", "a b", status=2).err
    assert server.asked == []


def test_a_job_is_shown_with_its_attempts(server: Server, run: Callable[..., Any]) -> None:
    tasks = [
        {"name": "try", "state": "FAILED", "error": "x" * 100, **TIMES, "failedAt": "2025-10-19T12:00:01Z"},
        {"name": "try", "state": "RUNNING", "retry": {"limit": 2, "attempts": 1}},
    ]
    server.replies[f"GET /jobs/{ID}"] = DONE | {"name": "n", "tags": ["a", "b"], "execution": tasks}

    out = run("show", ID).out

    assert f"id           {ID}\nname         n\ntags         a, b\nstate        COMPLETED\n" in out
    assert f"try   FAILED         1  0.5 s  {'x' * 57}...\n" in out
    assert "try   RUNNING        2\n" in out


@pytest.mark.parametrize(
    ("command", "method", "suffix", "done"),
    [
        ("cancel", "PUT", "/cancel", "cancelled"),
        ("restart", "PUT", "/restart", "restarted"),
        ("delete", "DELETE", "", "deleted"),
    ],
)
def test_several_jobs_are_changed_at_once(
    server: Server, run: Callable[..., Any], command: str, method: str, suffix: str, done: str
) -> None:
    server.replies = {f"{method} /jobs/{each}{suffix}": {"status": "OK"} for each in ("a", "b")}

    assert run(command, "a", "b").err.splitlines() == [f"{done} a", f"{done} b"]
    assert len(server.asked) == 2


def test_queues_and_nodes_are_tables(server: Server, run: Callable[..., Any]) -> None:
    server.replies["GET /queues"] = [{"name": "default", "size": 3, "subscribers": 4, "unacked": 2}]
    server.replies["GET /nodes"] = [{"name": "Worker", "status": "DOWN", "cpuPercent": 1.5, "detail": "no engine"}]

    assert run("queues").out.splitlines()[2].split() == ["default", "3", "2", "4"]
    assert run("nodes").out.splitlines()[2].split() == ["Worker", "DOWN", "1.5", "no", "engine"]
    assert json.loads(run("queues", "--json").out)[0]["unacked"] == 2
