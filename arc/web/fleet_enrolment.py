"""Enrolment over HTTP: an admin makes a secret or a script, a new machine exchanges it for its credential.

POST .../init -> token | script -> GET .../program -> POST .../init/{token} -> credential, below /api/v1/agents
Source: the remote agents specification, sections 2.20 and 2.21, without certificates.
"""

from __future__ import annotations

import shlex

from flask import Response, current_app, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import Invalid
from arc.fleet.messages import Fields
from arc.web import audit
from arc.web.auth import PUBLIC, Gate
from arc.web.fleet_requests import fleet, project, with_fleet_errors
from arc.web.jobrequests import identity
from arc.web.parts import parts
from arc.web.surface import Surface

SHELL = """\
#!/bin/sh
set -eu
install_dir=/opt/arc
mkdir -p "$install_dir"
if ! python3 -c 'import psutil' 2>/dev/null; then
  if command -v apt-get >/dev/null; then apt-get install -y python3-psutil
  elif command -v dnf >/dev/null; then dnf install -y python3-psutil
  else python3 -m pip install psutil
  fi
fi
curl -fsS -H 'X-Enrolment-Token: '{token} -o "$install_dir/arc-agent.pyz" {url}/api/v1/agents/program
python3 "$install_dir/arc-agent.pyz" agent init --server {url} --enrolment-token {token}{identity} \\
  --install-dir "$install_dir" --start
"""
CLOUD_CONFIG = """\
#cloud-config
runcmd:
  - - sh
    - -ec
    - |
{script}"""
_IDENTITY = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["identity"],
            "properties": {"identity": {"type": "string", "description": "Up to 64 of A-Z a-z 0-9 . - _"}},
        },
        "example": {"identity": "press-07"},
    }
}
_SUBJECT = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {"CN": {"type": "string", "description": "The only identity the token shall be good for"}},
        },
        "example": {"CN": "press-07"},
    }
}

surface = Surface("fleet_enrolment", "Enrolment", "How a new machine comes into the fleet.")
with_fleet_errors(surface)


class EnrolmentPath(BaseModel):
    token: str = Field(description="Of POST /api/v1/agents/init; good once, for an hour")


class EnrolmentToken(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "token": "q3v...",
                "url": "https://arc.example/api/v1/agents/init/q3v...",
                "endpoint_url": "https://arc.example",
                "update_url": "https://arc.example/api/v1/agents/program",
                "renew_cert_url": "",
            }
        }
    )

    token: str
    url: str = Field(description="Where the token is exchanged")
    endpoint_url: str = Field(description="Server the agent shall talk to")
    update_url: str
    renew_cert_url: str = Field(description="Always empty: there are no certificates")


class Credential(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "token": "kX0...",
                "identity": "press-07",
                "project": "plant-a",
                "organization": "dom1",
                "server": "https://arc.example",
            }
        }
    )

    token: str = Field(description="Of the agent; it is not shown again")
    identity: str
    project: str
    organization: str
    server: str


class ProgramQuery(BaseModel):
    token: str = Field("", description="An enrolment token, instead of the header X-Enrolment-Token")


_MADE = {
    "description": "The token; with `Accept: text/x-shellscript` or `text/cloud-config` what installs an agent with it",
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/EnrolmentToken"}},
        "text/x-shellscript": {"schema": {"type": "string"}},
        "text/cloud-config": {"schema": {"type": "string"}},
    },
}
_PROGRAM = {
    "description": "A zipapp: `python3 arc-agent.pyz agent`",
    "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
}
surface.further_models.append(EnrolmentToken)


@surface.api(
    "POST", "/api/v1/agents/init", needs="admin", answers={200: _MADE}, body=_SUBJECT, audit="enrolment.create"
)
def make_enrolment_token() -> Response:
    """Make a token that one machine can exchange, once and within an hour, for the credential of its agent.

    The agent belongs to the project and organization of the token that asks. The body may be empty.
    """
    who = identity()
    common_name = _common_name(Fields(request.get_json(), "the body"))
    secret = fleet().enrolment.make(common_name or None, project(), who.organization, who.name, clock.now_us())
    audit.note(common_name)
    server = _server_url()
    kind = request.headers.get("Accept", "")
    if kind in ("text/x-shellscript", "text/cloud-config"):
        return Response(_script(kind, server, secret, common_name), content_type=kind)
    options = parts().config.section("fleet")
    return jsonify(
        token=secret,
        url=f"{server}/api/v1/agents/init/{secret}",
        endpoint_url=server,
        update_url=options["update_url"] or f"{server}/api/v1/agents/program",
        renew_cert_url="",
    )


@surface.api(
    "POST", "/api/v1/agents/init/<token>",
    needs=PUBLIC, answers={200: Credential}, errors=[403, 409], body=_IDENTITY, audit="enrolment.exchange",
)  # fmt: skip
def enrol_agent(path: EnrolmentPath) -> Response:
    """Exchange an enrolment token for the credential of an agent; one that the identity had before is dead.

    The token in the path is the secret, no other is needed. A refused exchange does not use it up.
    """
    request.environ["arc.logged_path"] = "/api/v1/agents/init/..."  # the log is for more people than the secret
    asked_for = Fields(request.get_json(), "the body").text("identity")
    enrolled = fleet().enrol(path.token, asked_for)
    audit.note(enrolled.agent_id)
    return jsonify(
        token=enrolled.token,
        identity=enrolled.agent_id,
        project=enrolled.project or "",
        organization=enrolled.organization or "",
        server=_server_url(),
    )


@surface.api("GET", "/api/v1/agents/program", needs=PUBLIC, answers={200: _PROGRAM}, errors=[401, 403])
def agent_program(query: ProgramQuery) -> Response:
    """The agent as one file for Python 3.11 with psutil.

    It takes an enrolment token, which stays good, in the header `X-Enrolment-Token` or as `?token=`; or any token.
    """
    from arc.fleet.program import program

    if secret := request.headers.get("X-Enrolment-Token") or query.token:
        fleet().enrolment.check(secret, clock.now_us())
    else:
        gate: Gate = current_app.extensions["arc.gate"]
        gate.identify(request.environ)
    answer = Response(program(), mimetype="application/zip")
    answer.headers["Content-Disposition"] = "attachment; filename=arc-agent.pyz"
    answer.add_etag()
    answer.make_conditional(request)
    return answer


def _common_name(fields: Fields) -> str:
    """Raises Invalid, also for `names` that certificates could not have."""
    names = fields.raw("names")
    entries = names if isinstance(names, list) else [] if names is None else [names]
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(value, str | None) for value in entry.values()):
            raise Invalid("names must be a list of objects with texts")
    return fields.text("cn")


def _server_url() -> str:
    """The address under which machines reach this server: [fleet] public_url, else as the caller did."""
    public: str = parts().config.get("fleet", "public_url")
    if public:
        return public.rstrip("/")
    headers = request.headers
    scheme = (
        ("https" if headers.get("X-Forwarded-Ssl") == "on" else "")
        or headers.get("X-Forwarded-Scheme")
        or headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
        or request.scheme
    )
    host = headers.get("X-Forwarded-Host", "").rpartition(",")[2].strip() or request.host
    return f"{scheme}://{host}"


def _script(kind: str, server: str, secret: str, common_name: str) -> str:
    """What installs and starts the agent, to be run by root."""
    named = f" --identity {shlex.quote(common_name)}" if common_name else ""
    script = SHELL.format(token=shlex.quote(secret), url=shlex.quote(server), identity=named)
    if kind == "text/x-shellscript":
        return script
    lines = script.splitlines()[1:]  # without the interpreter
    return CLOUD_CONFIG.format(script="".join(f"      {line}\n" for line in lines))
