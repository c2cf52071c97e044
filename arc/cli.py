"""The command line: python arc.py [COMMAND]; without a command the server starts. arc/commands/ has the others."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from arc import __version__
from arc.commands.actions import action
from arc.commands.audit import audit
from arc.commands.backup import backup, check, restore
from arc.commands.jobs import job
from arc.commands.metrics import databases, import_file, query, write
from arc.commands.options import configured
from arc.commands.token import token
from arc.errors import ArcError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arc import config


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
        if args and args[0].startswith("-") and set(args) & set(cli.commands):
            click.echo("Options come behind the command: python arc.py COMMAND --option VALUE", err=True)
        return error.exit_code
    except click.Abort:
        return 1
    except BrokenPipeError:  # `query ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 1
    return 0


def _fail(error: ArcError, status: int) -> int:
    """One line, whatever is in the text: DuckDB marks places in lines of their own, values come from files."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip(" ^"))
    click.echo(f"arc: {''.join(c if c.isprintable() else '?' for c in text)}", err=True)
    return status


def _with_default_command(args: list[str]) -> list[str]:
    """`python arc.py --port 9000` means `server --port 9000`."""
    is_command = bool(args) and (not args[0].startswith("-") or args[0] in ("--help", "-h"))
    return args if is_command else ["server", *args]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Arc: metrics, jobs, fleet and actions of a small fleet, in one process.

    Without a command the server starts; `server --help` lists its options (--port, --host, --data, ...), which do
    without the word too: python arc.py --port 9000. Options of other commands come behind the command.

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


@cli.command("agent", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def agent(words: Sequence[str]) -> None:
    """Run the agent of a machine, or one of its commands; `agent --help` lists them."""
    from arc.agent.main import main as run  # the launcher goes there without coming by: this is for the list above

    sys.exit(run(words))


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


for command in (token, write, import_file, query, databases, job, action, audit, backup, restore, check):
    cli.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
