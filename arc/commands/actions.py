"""Commands for actions: what a node can do, schedule one, follow it, cancel it, export and import; all over HTTP."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import click

from arc.commands.options import connected
from arc.commands.terminal import print_table
from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arc.commands.client import Client

    Shape = dict[str, Any]

ENDED = frozenset({"DONE", "FAILED"})
WATCH_S = 30  # seconds one look may wait for a change
PAUSE_S = 1.0
_SHOWN_KEYS = ("id", "kind", "state", "requester", "created_ts", "scheduled_ts", "finished_ts")
_SHORT = 100  # characters of a payload in a table

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")
agent_option = click.option("--agent", metavar="ID", help="On the machine with this agent instead of the server's own.")


class Node:
    """The node that a command is about: the server's own, or that of an agent."""

    def __init__(self, client: Client, agent: str | None) -> None:
        self._client = client
        self._root = f"/api/v1/agents/{quote(agent, safe='')}" if agent else "/api/unstable"

    def get(self, path: str, **params: Any) -> Any:
        return self._client.request("GET", f"{self._root}/{path}", params=params).json()

    def post(self, path: str, body: Any, **params: Any) -> Any:
        return self._client.request("POST", f"{self._root}/{path}", json=body, params=params).json()

    def looks(self, action_id: str) -> Iterator[Shape]:
        """An action now, and again whenever it has changed, until it has ended."""
        found = self.get(f"actions/info/{quote(action_id, safe='')}")
        yield found
        while found["action"]["state"] not in ENDED:
            seen, asked_s = len(found["history"]), time.monotonic()
            found = self.get(f"actions/info/{quote(action_id, safe='')}", wait=WATCH_S)
            if len(found["history"]) != seen:
                yield found
            elif time.monotonic() - asked_s < PAUSE_S:  # too many wait already, or it is the copy of another node
                time.sleep(PAUSE_S)


@contextmanager
def _node(url: str | None, token: str | None, agent: str | None) -> Iterator[Node]:
    from arc.commands.client import Client

    with Client(url, token) as client:
        yield Node(client, agent)


@click.group()
def action() -> None:
    """Have nodes carry out durable operations, and follow them."""


@action.command("kinds")
@connected
@agent_option
@json_option
@click.argument("kind", required=False)
def list_kinds(kind: str | None, url: str | None, token: str | None, agent: str | None, as_json: bool) -> None:
    """List what the node can do; with KIND, its arguments."""
    with _node(url, token, agent) as node:
        found = [each for each in node.get("actions/available") if kind in (None, each["kind"], *each["aliases"])]
    if not found:
        raise ArcError(f"no action of kind {kind!r} on this node")
    if as_json:
        click.echo(_json(found))
    elif kind:
        _print_kind(found[0])
    else:
        print_table(("kind", "arguments", "what it does"), [_kind_row(each) for each in found])


@action.command("schedule")
@connected
@agent_option
@json_option
@click.option("--args", "as_text", metavar="JSON", help="The arguments as one JSON value.")
@click.option("--id", "action_id", metavar="UUID", help="Its id; a second action with it is refused.")
@click.option("--watch", "-w", "watches", is_flag=True, help="Print its history as it grows until it has ended.")
@click.argument("kind")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
def schedule_action(
    kind: str,
    pairs: Sequence[str],
    url: str | None,
    token: str | None,
    agent: str | None,
    as_json: bool,
    as_text: str | None,
    action_id: str | None,
    watches: bool,
) -> None:
    """Queue an action of KIND and print its id.

    A VALUE is JSON where it can be read as such, else text: count=3, unit=nginx.service, args='["-n", "100"]'.
    With --watch the exit status is 0 only if the action was DONE.
    """
    args = _args(pairs, as_text)
    with _node(url, token, agent) as node:
        scheduled = node.post(f"actions/schedule/{quote(kind)}", args, action_id=action_id)
        if not watches:
            click.echo(_json(scheduled) if as_json else scheduled["id"])
            return
        click.echo(f"action {scheduled['id']}", err=True)
        _report_end(_watched(node, scheduled["id"], as_json))


@action.command("list")
@connected
@agent_option
@json_option
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Finished ones, at most.")
def list_actions(url: str | None, token: str | None, agent: str | None, as_json: bool, limit: int) -> None:
    """List actions: what waits and runs in the order of execution, then what has ended, newest first."""
    with _node(url, token, agent) as node:
        found = node.get("actions/queue")  # first: what ends meanwhile is in both lists, not in none
        queued = {each["id"] for each in found}
        found += [each for each in node.get("actions/finished", limit=limit) if each["id"] not in queued]
    if as_json:
        click.echo(_json(found))
        return
    print_table(("id", "state", "kind"), [(each["id"], each["state"], each["kind"]) for each in found])


@action.command("show")
@connected
@agent_option
@json_option
@click.option("--watch", "-w", "watches", is_flag=True, help="Go on until it has ended.")
@click.argument("action_id", metavar="ID")
def show_action(
    action_id: str, url: str | None, token: str | None, agent: str | None, as_json: bool, watches: bool
) -> None:
    """Print an action and its history, oldest event first."""
    with _node(url, token, agent) as node:
        if watches:
            _report_end(_watched(node, action_id, as_json))
            return
        found = node.get(f"actions/info/{quote(action_id, safe='')}")
    if as_json:
        click.echo(_json(found))
        return
    for name in _SHOWN_KEYS:
        if found["action"][name]:
            click.echo(f"{name:12} {found['action'][name]}")
    click.echo(f"{'args':12} {_compact(found['action']['args'])}\n")
    events = [(each["timestamp"], each["state"], _short(each["state_payload"])) for each in reversed(found["history"])]
    print_table(("time", "state", "payload"), events)
    if found["action"]["state_payload"] is not None:
        click.echo(f"\n{_json(found['action']['state_payload'])}")


@action.command("cancel")
@connected
@agent_option
@click.option("--reason", default="", help="For its history.")
@click.argument("action_ids", metavar="ID...", nargs=-1, required=True)
def cancel_actions(
    action_ids: Sequence[str], url: str | None, token: str | None, agent: str | None, reason: str
) -> None:
    """End actions that wait; ask those that run, if their kinds can stop."""
    with _node(url, token, agent) as node:
        for action_id in action_ids:
            found = node.post(f"actions/cancel/{quote(action_id, safe='')}", {"reason": reason})
            click.echo(f"{'asked' if found.get('cancel_requested') else 'cancelled'} {action_id}", err=True)


@action.command("export")
@connected
def export_actions(url: str | None, token: str | None) -> None:
    """Print all actions of the server's own node that have ended, as JSON lines."""
    from arc.commands.client import Client

    with Client(url, token) as client:
        for piece in client.pieces(client.request("GET", "/api/unstable/actions/export", stream=True)):
            click.echo(piece, nl=False)


@action.command("import")
@connected
@click.argument("file", type=click.File("rb"), default="-")
def import_actions(file: IO[bytes], url: str | None, token: str | None) -> None:
    """Add actions that have ended to those of the server's own node, from FILE or standard input.

    Lines as `action export` prints them; all come in or none. Those whose ids are known are skipped.
    """
    from arc.commands.client import Client

    headers = {"Content-Type": "application/x-ndjson"}
    with Client(url, token) as client:
        found = client.request("POST", "/api/unstable/actions/import", data=file.read(), headers=headers).json()
    click.echo(f"{found['imported']} imported, {found['skipped']} known already", err=True)


def _args(pairs: Sequence[str], as_text: str | None) -> Any:
    if as_text is not None:
        if pairs:
            raise click.UsageError("give --args or KEY=VALUE, not both")
        try:
            return json.loads(as_text)
        except ValueError as error:
            raise click.BadParameter(f"no JSON: {error}", param_hint="--args") from None
    split = [pair.partition("=") for pair in pairs]
    if wrong := next((key for key, sign, _ in split if not sign), None):
        raise click.BadParameter(f"{wrong!r} is not of the form KEY=VALUE")
    return {key: _value(text) for key, _, text in split}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _watched(node: Node, action_id: str, as_json: bool) -> Shape:
    """Prints each event of the history once; returns the action as it ended."""
    printed, found = 0, {}
    for found in node.looks(action_id):
        fresh = found["history"][: len(found["history"]) - printed]
        for event in reversed(fresh):
            payload = event["state_payload"]
            line = f"{event['timestamp']} {event['state']:8} {'' if payload is None else _compact(payload)}".rstrip()
            click.echo(_compact(event) if as_json else line)
        printed = len(found["history"])
    ended: Shape = found["action"]
    return ended


def _report_end(ended: Shape) -> None:
    """Raises ArcError unless it was DONE."""
    if ended["state"] != "DONE":
        payload = ended["state_payload"]
        error = payload.get("error") if isinstance(payload, dict) else None
        raise ArcError(f"action {ended['id']} {ended['state']}" + (f": {error}" if error else ""))


def _kind_row(kind: Shape) -> tuple[str, str, str]:
    schema = kind["args_schema"] or {}
    required = schema.get("required", [])
    names = [name if name in required else f"[{name}]" for name in schema.get("properties", {})]
    return kind["kind"], " ".join(names), kind["description"]


def _print_kind(kind: Shape) -> None:
    click.echo(f"{kind['kind']}: {kind['description']}")
    for title, value in (
        ("aliases", kind["aliases"]),
        ("stages", kind["stages"]),
        ("permission", [kind["permission"]]),
    ):
        if value:
            click.echo(f"{title:12} {', '.join(value)}")
    schema = kind["args_schema"] or {}
    if members := schema.get("properties"):
        click.echo()
        required = schema.get("required", [])
        rows = [
            (name, "required" if name in required else _compact(member.get("default")), _allowed(member),
             member.get("description", ""))
            for name, member in members.items()
        ]  # fmt: skip
        print_table(("argument", "default", "type", "meaning"), rows)


def _allowed(member: Shape) -> str:
    if "enum" in member:
        return " | ".join(map(str, member["enum"]))
    kinds = member.get("type", "any")
    return kinds if isinstance(kinds, str) else " | ".join(kinds)


def _short(payload: Any) -> str:
    text = "" if payload is None else _compact(payload)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."


def _compact(found: Any) -> str:
    return json.dumps(found, ensure_ascii=False)


def _json(found: Any) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False)
