"""Options that several commands share."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import click

from arc import config
from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --url and --token, for a server it talks to over HTTP."""
    for option in (
        click.option("--token", envvar="ARC_TOKEN", metavar="TOKEN", help="API token; better in ARC_TOKEN."),
        click.option("--url", envvar="ARC_URL", metavar="URL", help="Server, or ARC_URL; http://localhost:8000."),
    ):
        command = option(command)
    return command


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: must be SECTION.KEY=VALUE")
    return key.strip(), value
