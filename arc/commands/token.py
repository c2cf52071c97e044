"""Commands that make and manage API tokens."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil

from arc import clock, datadir
from arc.commands.options import configured
from arc.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arc import config
    from arc.access.audit import AuditTrail
    from arc.access.tokens import Token, TokenStore


@click.group()
def token() -> None:
    """Make and manage API tokens.

    Works on the database itself, also while the server runs, which heeds a change at once and has it in its audit
    trail. TOKEN is a name or an id.
    """


@contextmanager
def _tokens(loaded: config.Config, *, is_new: bool = False) -> Iterator[tuple[TokenStore, AuditTrail]]:
    """What is in the configured data directory, which must exist unless `is_new`."""
    from arc.access.audit import AuditTrail
    from arc.access.tokens import TokenStore
    from arc.db.engine import open_database

    directory, url = Path(loaded.get("storage", "dir")), loaded.get("database", "url")
    if not (is_new or url or (directory / "arc.db").exists()):
        raise NotFound(f"no tokens in {directory}; start the server on it, or make one with `token create`")
    db = open_database(datadir.create(directory), url)
    try:
        yield TokenStore(db), AuditTrail(db)
    finally:
        db.close()


def _find(tokens: TokenStore, ref: str) -> Token:
    from arc.access.tokens import TokenNotFound

    for found in tokens.list():
        if ref in (found.name, str(found.id)):
            return found
    raise TokenNotFound


@token.command("create")
@configured
@click.argument("name")
@click.option("--permissions", default="read,write", show_default=True, help="Of read, write, delete, admin, agent.")
@click.option("--description", default="", help="What it is for.")
@click.option("--expires-in", metavar="TIME", help="Life time such as 90m, 24h or 7d; without it the token lives on.")
@click.option("--project", help="Project it belongs to.")
@click.option("--organization", help="Organization it belongs to.")
def create_token(loaded: config.Config, expires_in: str | None, **values: Any) -> None:
    """Make a token and print its secret, once."""
    expires_at_us = _in(expires_in) if expires_in else None
    _check_permissions(values["permissions"])
    with _tokens(loaded, is_new=True) as (tokens, trail):
        made, secret = tokens.create(expires_at_us=expires_at_us, **values)
        _print_secret(made, secret)
        _record(trail, "token.create", made)


@token.command("list")
@configured
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def list_tokens(loaded: config.Config, as_json: bool) -> None:
    """List all tokens; never their secrets."""
    with _tokens(loaded) as (tokens, _):
        found = tokens.list()
    if as_json:
        click.echo(json.dumps([_fields(each) for each in found], indent=2))
        return
    for each in found:
        click.echo(f"{each.id:4} {each.name:24} {','.join(each.permissions):28} {_state(each)}")


@token.command("show")
@configured
@click.argument("ref", metavar="TOKEN")
def show_token(loaded: config.Config, ref: str) -> None:
    """Print what is known of one token, as JSON."""
    with _tokens(loaded) as (tokens, _):
        click.echo(json.dumps(_fields(_find(tokens, ref)), indent=2))


@token.command("rotate")
@configured
@click.argument("ref", metavar="TOKEN")
def rotate_token(loaded: config.Config, ref: str) -> None:
    """Give a token a new secret and print it, once; the old one is dead."""
    with _tokens(loaded) as (tokens, trail):
        made, secret = tokens.rotate(_find(tokens, ref).id)
        _print_secret(made, secret)
        _record(trail, "token.rotate", made)
    if not made.enabled:
        click.echo(f"warning: {made.name} is still revoked, so the new secret opens nothing", err=True)


@token.command("revoke")
@configured
@click.argument("ref", metavar="TOKEN")
def revoke_token(loaded: config.Config, ref: str) -> None:
    """Switch a token off; it stays in the list."""
    with _tokens(loaded) as (tokens, trail):
        found = _find(tokens, ref)
        _record(trail, "token.revoke", tokens.revoke(found.id))
        click.echo(f"revoked {found.name}", err=True)
        _warn_if_last_admin(tokens, found)


@token.command("delete")
@configured
@click.argument("ref", metavar="TOKEN")
def delete_token(loaded: config.Config, ref: str) -> None:
    """Delete a token."""
    with _tokens(loaded) as (tokens, trail):
        found = _find(tokens, ref)
        _record(trail, "token.delete", tokens.delete(found.id))
        click.echo(f"deleted {found.name}", err=True)
        _warn_if_last_admin(tokens, found)


@token.command("verify")
@configured
def verify_token(loaded: config.Config) -> None:
    """Read a secret from standard input and print whose it is; exit 1 if it opens nothing."""
    is_terminal = sys.stdin.isatty()
    secret = click.prompt("Token", hide_input=True, err=True) if is_terminal else sys.stdin.readline().strip()
    with _tokens(loaded) as (tokens, _):
        click.echo(json.dumps(_fields(tokens.verify(secret)), indent=2))


def _record(trail: AuditTrail, action: str, changed: Token) -> None:
    details = {"name": changed.name, "permissions": changed.permissions, "enabled": changed.enabled}
    user = psutil.Process().username()
    trail.record(action, str(changed.id), details | {"user": user}, status=200, client="command line")


def _warn_if_last_admin(tokens: TokenStore, gone: Token) -> None:
    now_us = clock.now_us()
    if "admin" not in gone.permissions or not gone.is_good(now_us):
        return
    if not any("admin" in each.permissions and each.is_good(now_us) for each in tokens.list()):
        click.echo("warning: no admin token is left; make one with `token create NAME --permissions admin`", err=True)


def _in(text: str) -> int:
    try:
        length_us = clock.parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires-in") from None
    if not length_us:
        raise click.BadParameter("a token must live for some time", param_hint="--expires-in")
    return clock.now_us() + length_us


def _check_permissions(text: str) -> None:
    from arc.access.tokens import PERMISSIONS

    for name in (part.strip() for part in text.split(",")):
        if name and name not in PERMISSIONS:
            text = f"unknown permission {name!r}; there are {', '.join(PERMISSIONS)}"
            raise click.BadParameter(text, param_hint="--permissions")


def _print_secret(made: Token, secret: str) -> None:
    """The secret alone on standard output, so that a script can take it."""
    click.echo(f"token {made.id} {made.name} ({','.join(made.permissions)}); its secret is not shown again:", err=True)
    click.echo(secret)


def _state(found: Token) -> str:
    if not found.enabled:
        return "revoked"
    if found.expires_at is None:
        return "active"
    is_over = clock.now_us() >= found.expires_at
    return f"{'expired' if is_over else 'active until'} {clock.rfc3339(found.expires_at)}"


def _fields(found: Token) -> dict[str, Any]:
    instants = {name: clock.rfc3339(getattr(found, name)) for name in ("created_at", "last_used_at", "expires_at")}
    return vars(found) | instants
