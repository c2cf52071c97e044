"""For the dashboard: what the caller may do here, and the configuration in force."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

import arc
from arc.access.tokens import PERMISSIONS, Identity
from arc.web.auth import ANY, IDENTITY_KEY
from arc.web.parts import parts
from arc.web.surface import Surface

surface = Surface("system", "System", "What this server offers to the caller, and how it is configured.")


class Session(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "ada",
                "permissions": ["read", "write"],
                "project": None,
                "organization": None,
                "surfaces": ["metrics", "jobs", "fleet", "actions"],
                "version": "1.0.0",
            }
        }
    )

    name: str = Field(description="Name of the token; anonymous while no token is needed")
    permissions: list[str] = Field(description="All that the token may do; admin implies the others but agent")
    project: str | None
    organization: str | None
    surfaces: list[str] = Field(description="What is switched on")
    version: str


class OptionInfo(BaseModel):
    section: str
    name: str
    value: str = Field(description="As TOML; secrets are masked")
    is_default: bool
    source: str = Field(description="default, file, environment or flag")
    help: str
    unit: str


class Configuration(BaseModel):
    options: list[OptionInfo]


@surface.api("GET", "/api/v1/session", needs=ANY, answers={200: Session})
def show_session() -> Response:
    """Who the caller is, what it may do, and which surfaces this server has."""
    identity: Identity = request.environ[IDENTITY_KEY]
    return jsonify(
        name=identity.name,
        permissions=[permission for permission in PERMISSIONS if identity.may(permission)],
        project=identity.project,
        organization=identity.organization,
        surfaces=_surfaces(),
        version=arc.__version__,
    )


@surface.api("GET", "/api/v1/configuration", needs="admin", answers={200: Configuration})
def show_configuration() -> Response:
    """Every option, its value and where it came from; secrets are masked."""
    return jsonify(options=[_option_json(setting) for setting in parts().config])


def _surfaces() -> list[str]:
    found, node = parts(), parts().node
    switched_on = {
        "metrics": True,
        "jobs": found.config.get("jobs", "enabled"),
        "fleet": True,
        "actions": node is not None and node.engine is not None,
    }
    return [name for name, is_on in switched_on.items() if is_on]


def _option_json(setting: Any) -> dict[str, Any]:
    option = setting.option
    return {
        "section": option.section,
        "name": option.name,
        "value": option.show(setting.value),
        "is_default": setting.source == "default",
        "source": setting.source,
        "help": option.help,
        "unit": option.unit,
    }
