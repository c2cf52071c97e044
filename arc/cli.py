"""Commands: python arc.py [server|config|token|version].

Only what a command needs is imported, inside it: `token list` shall not wait for the query engine.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arc import __version__, clock, config, datadir
from arc.errors import ArcError, ConfigError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arc.access.tokens import Token, TokenStore


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 an error, 2 wrong usage or configuration."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        cli.main(_with_default_command(args), prog_name="arc", standalone_mode=False)
    except ConfigError as error:
        return _fail(error, 2)
    except ArcError as error:
        return _fail(error, 1)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 1
    return 0


def _fail(error: ArcError, status: int) -> int:
    click.echo(f"arc: {error}", err=True)
    return status


def _with_default_command(args: list[str]) -> list[str]:
    """`python arc.py --port 9000` means `server --port 9000`."""
    is_command = bool(args) and (not args[0].startswith("-") or args[0] in ("--help", "-h"))
    return args if is_command else ["server", *args]


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that make up a configuration, and pass it the Config first."""

    @click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Set any option; repeatable.")
    @click.option("--data", metavar="DIR", help="Data directory; the same as --set storage.dir=DIR.")
    @click.option("--config", "path", metavar="FILE", help="Configuration file.")
    @functools.wraps(command)
    def with_config(path: str | None, data: str | None, settings: Sequence[str], **rest: Any) -> Any:
        flags = {"storage.dir": data, "server.host": rest.pop("host", None), "server.port": rest.pop("port", None)}
        values = dict(map(_assignment, settings)) | {key: value for key, value in flags.items() if value is not None}
        return command(config.load(path, os.environ, values), **rest)

    return with_config


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: must be SECTION.KEY=VALUE")
    return key.strip(), value


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Arc: metrics, jobs, fleet and actions of a small fleet, in one process.

    Without a command the server starts.

    Options come from a TOML file (--config, ARC_CONF, ./arc.conf, /etc/arc/arc.conf), then from the environment
    (ARC_SERVER_PORT=9000), then from flags. arc.conf.example describes them all; `config` shows what is in force.
    """


@cli.command()
@configured
@click.option("--port", help="TCP port to listen on.")
@click.option("--host", help="Address to listen on.")
def server(loaded: config.Config) -> None:
    """Run the server until SIGTERM or Ctrl-C."""
    from arc.app import serve

    serve(loaded)


@cli.command("config")
@configured
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def show_config(loaded: config.Config, as_json: bool) -> None:
    """Print every option, its value and where it came from; secrets are masked."""
    rows = [(s.option, s.option.show(s.value), s.source) for s in loaded]
    if as_json:
        keys = ("option", "value", "source")
        rows_as_json = [dict(zip(keys, (o.key, json.loads(value), source), strict=True)) for o, value, source in rows]
        click.echo(json.dumps(rows_as_json, indent=2))
        return
    for option, value, source in rows:
        click.echo(f"{option.key:32} {value:24} {source}")


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


@cli.group()
def token() -> None:
    """Make and manage API tokens.

    Works on the database itself, also while the server runs, which heeds a change at once. TOKEN is a name or an id.
    """


@contextmanager
def _tokens(loaded: config.Config, *, is_new: bool = False) -> Iterator[TokenStore]:
    """The tokens of the configured data directory, which must exist unless `is_new`."""
    from arc.access.tokens import TokenStore
    from arc.db.engine import open_database

    directory, url = Path(loaded.get("storage", "dir")), loaded.get("database", "url")
    if not (is_new or url or (directory / "arc.db").exists()):
        raise NotFound(f"no tokens in {directory}; start the server on it, or make one with `token create`")
    db = open_database(datadir.create(directory), url)
    try:
        yield TokenStore(db)
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
    with _tokens(loaded, is_new=True) as tokens:
        made, secret = tokens.create(expires_at_us=expires_at_us, **values)
    _print_secret(made, secret)


@token.command("list")
@configured
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def list_tokens(loaded: config.Config, as_json: bool) -> None:
    """List all tokens; never their secrets."""
    with _tokens(loaded) as tokens:
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
    with _tokens(loaded) as tokens:
        click.echo(json.dumps(_fields(_find(tokens, ref)), indent=2))


@token.command("rotate")
@configured
@click.argument("ref", metavar="TOKEN")
def rotate_token(loaded: config.Config, ref: str) -> None:
    """Give a token a new secret and print it, once; the old one is dead."""
    with _tokens(loaded) as tokens:
        made, secret = tokens.rotate(_find(tokens, ref).id)
    _print_secret(made, secret)


@token.command("revoke")
@configured
@click.argument("ref", metavar="TOKEN")
def revoke_token(loaded: config.Config, ref: str) -> None:
    """Switch a token off; it stays in the list."""
    with _tokens(loaded) as tokens:
        click.echo(f"revoked {tokens.revoke(_find(tokens, ref).id).name}", err=True)


@token.command("delete")
@configured
@click.argument("ref", metavar="TOKEN")
def delete_token(loaded: config.Config, ref: str) -> None:
    """Delete a token."""
    with _tokens(loaded) as tokens:
        found = _find(tokens, ref)
        tokens.delete(found.id)
    click.echo(f"deleted {found.name}", err=True)


@token.command("verify")
@configured
def verify_token(loaded: config.Config) -> None:
    """Read a secret from standard input and print whose it is; exit 1 if it opens nothing."""
    is_terminal = sys.stdin.isatty()
    secret = click.prompt("Token", hide_input=True, err=True) if is_terminal else sys.stdin.readline().strip()
    with _tokens(loaded) as tokens:
        click.echo(json.dumps(_fields(tokens.verify(secret)), indent=2))


def _in(text: str) -> int:
    try:
        return clock.now_us() + clock.parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires-in") from None


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


if __name__ == "__main__":
    sys.exit(main())
