"""Commands for jobs: submit, follow, look into, cancel, restart, delete. They ask a server over HTTP."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import click

from arc.commands.options import connected
from arc.commands.terminal import print_table, progress
from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arc.commands.client import Client, Refused

    Shape = dict[str, Any]

STATES = ("PENDING", "SCHEDULED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
LOG_PAGE = 100  # parts
LIST_PAGE = 20  # jobs
MAX_PAUSE_S = 1.0  # between two looks at a job
_SHOWN_KEYS = (
    *("id", "name", "description", "tags", "state", "createdAt", "startedAt", "completedAt", "failedAt"),
    *("progress", "result", "error"),
)
_SHOWN = 60  # characters of a result or an error in a table
_PLACE = re.compile(r"line (\d+)(?:, column (\d+))?: (.*)")

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group()
def job() -> None:
    """Submit jobs to a server, follow them, stop them."""


@job.command()
@connected
@json_option
@click.option("--wait", "waits", is_flag=True, help="Until the job has ended; print its result.")
@click.option("--follow", "-f", "follows", is_flag=True, help="Print the log as it grows until the job has ended.")
@click.argument("file", type=click.File("rb"))
def submit(file: IO[bytes], url: str | None, token: str | None, waits: bool, follows: bool, as_json: bool) -> None:
    """Submit the job in FILE, YAML or JSON; - is standard input. Prints the job's id.

    With --wait or --follow the exit status is 0 only if the job was COMPLETED. Ctrl-C ends the command, not the job.
    """
    from arc.commands.client import Client

    with Client(url, token) as client:
        found = _submitted(client, file)
        if not (waits or follows):
            click.echo(_json(found) if as_json else found["id"])
            return
        click.echo(f"job {found['id']}", err=True)
        ended = _followed(client, found["id"]) if follows else _awaited(client, found)
    if as_json:
        click.echo(_json(ended))
    elif waits and "result" in ended:
        click.echo(ended["result"])
    _report_end(ended)


@job.command("list")
@connected
@json_option
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only jobs in this state.")
@click.option("--tag", "tags", multiple=True, help="Only jobs with this tag; repeatable: with one of them.")
@click.option("-q", "words", default="", metavar="WORDS", help="Only jobs whose name or description has these words.")
@click.option("--limit", type=click.IntRange(1), default=LIST_PAGE, show_default=True, help="At most so many.")
def list_jobs(
    url: str | None, token: str | None, as_json: bool, state: str | None, tags: Sequence[str], words: str, limit: int
) -> None:
    """List jobs, newest first."""
    from arc.commands.client import Client

    if any(not tag or tag.split() != [tag] for tag in tags):
        raise click.BadParameter("a search cannot ask for tags with blanks", param_hint="--tag")
    wanted = " ".join([words, *(f"tag:{tag}" for tag in tags), state or ""])
    with Client(url, token) as client:
        found = list(_jobs(client, wanted, state, limit))
    if as_json:
        click.echo(_json(found))
        return
    rows = [
        (each["id"], each["state"], _moment(each["createdAt"]), _took(each), each.get("name", "")) for each in found
    ]
    print_table(("id", "state", "created", "took", "name"), rows)


@job.command("show")
@connected
@json_option
@click.argument("job_id", metavar="ID")
def show_job(job_id: str, url: str | None, token: str | None, as_json: bool) -> None:
    """Print a job and all attempts at its tasks."""
    from arc.commands.client import Client

    with Client(url, token) as client:
        found = _job(client, job_id)
    if as_json:
        click.echo(_json(found))
        return
    found["tags"] = ", ".join(found.get("tags", []))
    for name in _SHOWN_KEYS:
        if found.get(name):
            click.echo(f"{name:12} {found[name]}")
    click.echo()
    print_table(("task", "state", "attempt", "took", "result or error"), [_row(task) for task in found["execution"]])


@job.command("log")
@connected
@click.option("--follow", "-f", "follows", is_flag=True, help="Go on until the job has ended.")
@click.argument("job_id", metavar="ID")
def print_log(job_id: str, url: str | None, token: str | None, follows: bool) -> None:
    """Print what the tasks of a job wrote."""
    from arc.commands.client import Client

    with Client(url, token) as client:
        if follows:
            _report_end(_followed(client, job_id))
        else:
            _print(_Log(client, job_id).news())


@job.command("cancel")
@connected
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
def cancel_jobs(job_ids: Sequence[str], url: str | None, token: str | None) -> None:
    """Stop jobs, and whatever runs of them."""
    _each(url, token, "PUT", "/cancel", job_ids, "cancelled")


@job.command("restart")
@connected
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
def restart_jobs(job_ids: Sequence[str], url: str | None, token: str | None) -> None:
    """Run failed or cancelled jobs on from the task they stopped at."""
    _each(url, token, "PUT", "/restart", job_ids, "restarted")


@job.command("delete")
@connected
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
def delete_jobs(job_ids: Sequence[str], url: str | None, token: str | None) -> None:
    """Remove jobs that have ended, with their logs."""
    _each(url, token, "DELETE", "", job_ids, "deleted")


@job.command("queues")
@connected
@json_option
def list_queues(url: str | None, token: str | None, as_json: bool) -> None:
    """List the queues: how many tasks wait and run, how many can run at a time."""
    columns = {"queue": "name", "waiting": "size", "running": "unacked", "places": "subscribers"}
    _print_list(url, token, "/queues", columns, as_json)


@job.command("nodes")
@connected
@json_option
def list_nodes(url: str | None, token: str | None, as_json: bool) -> None:
    """List the nodes that coordinate jobs or run tasks."""
    keys = ("name", "status", "hostname", "taskCount", "cpuPercent", "lastHeartbeatAt", "version", "detail")
    titles = ("name", "status", "host", "tasks", "cpu %", "heard of", "version", "detail")
    columns = dict(zip(titles, keys, strict=True))
    _print_list(url, token, "/nodes", columns, as_json)


class _Log:
    """The log of a job: each part once, oldest first."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client, self._path = client, f"{_path(job_id)}/log"
        self._seen: set[str] = set()

    def news(self) -> list[str]:
        """What has come since the last call. The server lists the newest parts first."""
        fresh: list[str] = []
        number = 1
        while True:
            page = self._client.request("GET", self._path, params={"page": number, "size": LOG_PAGE}).json()
            fresh += [part["contents"] for part in page["items"] if part["id"] not in self._seen]
            self._seen.update(part["id"] for part in page["items"])
            if len(self._seen) >= page["totalItems"] or number >= page["totalPages"]:
                return fresh[::-1]
            number += 1


def _submitted(client: Client, file: IO[bytes]) -> Shape:
    from arc.commands.client import Refused

    body = file.read()
    headers = {"Content-Type": _content_type(file.name, body)}
    try:
        found: Shape = client.request("POST", "/jobs", data=body, headers=headers).json()
    except Refused as error:
        raise _at_its_line(error, file.name) from None
    return found


def _content_type(name: str, body: bytes) -> str:
    """By the file's name, else by how its text begins."""
    if name.lower().endswith((".yaml", ".yml")):
        return "text/yaml"
    is_json = name.lower().endswith(".json") or body.lstrip().startswith(b"{")
    return "application/json" if is_json else "text/yaml"


def _at_its_line(error: Refused, name: str) -> ArcError:
    """Each fault on a line of its own, `FILE:LINE: what`, as compilers print them."""
    faults = str(error).splitlines()
    if len(faults) == 1 and not _PLACE.match(faults[0]):
        return error
    for fault in faults:
        place = _PLACE.match(fault)
        where = ":".join(part for part in place.groups()[:2] if part) if place else ""
        click.echo(f"{name}:{where}: {place[3]}" if place else f"{name}: {fault}", err=True)
    return ArcError(f"{name} was not submitted")


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def _job(client: Client, job_id: str) -> Shape:
    found: Shape = client.request("GET", _path(job_id)).json()
    return found


def _jobs(client: Client, wanted: str, state: str | None, limit: int) -> Iterator[Shape]:
    number = 1
    while True:
        page = client.request("GET", "/jobs", params={"q": wanted, "page": number, "size": LIST_PAGE}).json()
        for found in page["items"]:
            if state in (None, found["state"]):  # the search finds the word in names too
                yield found
                limit -= 1
                if limit == 0:
                    return
        if number >= page["totalPages"]:
            return
        number += 1


def _looks(client: Client, job_id: str) -> Iterator[Shape]:
    """The job now and again until it has ended, that included."""
    pause_s = 0.05
    while True:
        found = _job(client, job_id)
        yield found
        if found["state"] in ENDED:
            return
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, MAX_PAUSE_S)


def _awaited(client: Client, submitted: Shape) -> Shape:
    found = submitted
    with progress(submitted.get("name", ""), 100) as advance:
        done = 0.0
        for found in _looks(client, submitted["id"]):
            advance(found.get("progress", 0.0) - done)
            done = found.get("progress", 0.0)
    return found


def _followed(client: Client, job_id: str) -> Shape:
    """Prints the log until the job has ended. The log is read after the job, so none of it is missed."""
    log, found = _Log(client, job_id), {}
    for look in _looks(client, job_id):
        found = look
        _print(log.news())
    return found


def _print(contents: Sequence[str]) -> None:
    for each in contents:
        click.echo(each, nl=False)


def _report_end(ended: Shape) -> None:
    """Raises ArcError unless it was COMPLETED."""
    text = f"job {ended['id']} {ended['state']}"
    if ended["state"] != "COMPLETED":
        raise ArcError(f"{text}: {ended['error']}" if "error" in ended else text)
    click.echo(f"{text} after {_took(ended)}", err=True)


def _each(url: str | None, token: str | None, method: str, suffix: str, job_ids: Sequence[str], done: str) -> None:
    from arc.commands.client import Client

    with Client(url, token) as client:
        for job_id in job_ids:
            client.request(method, _path(job_id) + suffix)
            click.echo(f"{done} {job_id}", err=True)


def _print_list(url: str | None, token: str | None, path: str, columns: dict[str, str], as_json: bool) -> None:
    from arc.commands.client import Client

    with Client(url, token) as client:
        found = client.request("GET", path).json()
    if as_json:
        click.echo(_json(found))
        return
    print_table(list(columns), [[each.get(key) for key in columns.values()] for each in found])


def _row(task: Shape) -> tuple[Any, ...]:
    said = str(task.get("error") or task.get("result", ""))
    shown = said if len(said) <= _SHOWN else f"{said[: _SHOWN - 3]}..."
    return task.get("name", ""), task["state"], task.get("retry", {}).get("attempts", 0) + 1, _took(task), shown


def _took(found: Shape) -> str:
    """From its start to its end, or to now; empty when one of them is not known."""
    end = found.get("completedAt") or found.get("failedAt")
    if "startedAt" not in found or (end is None and found["state"] != "RUNNING"):
        return ""
    ended_at = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return f"{max((ended_at - datetime.fromisoformat(found['startedAt'])).total_seconds(), 0.0):.1f} s"


def _moment(text: str) -> str:
    """To the second."""
    return f"{text[:19]}Z"


def _json(found: Any) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False)
