"""The command that shows the audit trail; over HTTP."""

from __future__ import annotations

import json
from typing import Any

import click

from arc.commands.options import connected
from arc.commands.terminal import print_table

_COLUMNS = ("id", "at", "token", "client", "action", "object", "status", "details")


@click.command("audit")
@connected
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only entries older than this one.")
@click.option("--since", metavar="TIME", help="Recorded then or later; RFC 3339.")
@click.option("--until", metavar="TIME", help="Recorded earlier; RFC 3339.")
@click.option("--action", metavar="ACTION", help="token.create, or token for all that was done to tokens.")
@click.option("--by", metavar="TOKEN", help="Name or id of the token that asked.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def audit(url: str | None, token: str | None, by: str | None, as_json: bool, **wanted: Any) -> None:
    """Show who changed access, commanded machines or destroyed data, newest first; status 403: it was not allowed."""
    from arc.commands.client import Client

    with Client(url, token) as client:
        found = client.request("GET", "/api/v1/audit", params=wanted | {"token": by}).json()["entries"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    print_table(_COLUMNS, [[_cell(entry[column]) for column in _COLUMNS] for entry in found])


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
