"""Enrolment: an enrolment token becomes the agent's own credential, in a configuration file only its owner reads."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from arc import __version__
from arc.agent.config import FILE_NAME, OPTIONS, Settings
from arc.agent.http import Connection, Url
from arc.errors import Denied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping


def exchange(settings: Settings, enrolment_token: str) -> Settings:
    """With the credential, and what else the server has decided. Raises Denied, Unavailable."""
    path = f"{Url.parse(settings.server).path.rstrip('/')}/api/v1/agents/init/{enrolment_token}"
    headers = {
        "Accept": "application/json", "Content-Type": "application/json", "User-Agent": f"arc-agent/{__version__}"
    }  # fmt: skip
    connection = Connection(settings.server, settings.ca_cert)
    try:
        answer = connection.request("POST", path, json.dumps({"identity": settings.identity}).encode(), headers)
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot reach {settings.server}: {error}") from None
    finally:
        connection.close()
    if answer.status == 403:
        raise Denied("invalid registration token given")
    if answer.status != 200:
        said = answer.body[:500].decode("utf-8", "replace").strip()
        raise Unavailable(f"unknown error while enrolling: {answer.status} {answer.reason} {said}")
    given: Mapping[str, str] = json.loads(answer.body)
    named = {name: given[name] for name in ("token", "identity", "project", "organization") if given.get(name)}
    return Settings(**vars(settings) | named)


def write_file(settings: Settings) -> str:
    """All that is not as by default. Returns the path; the file is there whole or not at all."""
    os.makedirs(settings.install_dir, mode=0o755, exist_ok=True)
    path = os.path.join(settings.install_dir, FILE_NAME)
    plain = Settings(identity=settings.identity, install_dir=settings.install_dir)
    lines = [
        f"{option.name.replace('_', '-')}: {_text(value)}\n"
        for option in OPTIONS
        if (value := getattr(settings, option.name)) != getattr(plain, option.name) or option.name == "identity"
    ]
    partial = f"{path}.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)  # one that was left may have had another mode
        file.writelines(lines)
        file.flush()
        os.fsync(descriptor)
    os.replace(partial, path)
    return path


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) and ("#" in value or value != value.strip()) else str(value)
