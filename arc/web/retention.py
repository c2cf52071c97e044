"""Retention policies over HTTP: make, list, change, delete, execute, and what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from arc import clock
from arc.errors import Invalid
from arc.web import audit, databases, parse
from arc.web.parts import parts
from arc.web.surface import CREATED, Surface

if TYPE_CHECKING:
    from arc.metrics.upkeep.retention import Execution, Policy

PATH = "/api/v1/retention"
_NULLABLE = {"measurement"}
_BUFFER_DAYS = 7  # unless said otherwise
_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "name": "cpu 90 days",
    "database": "default",
    "measurement": "cpu",
    "retention_days": 90,
    "buffer_days": 7,
    "is_active": True,
    "last_execution_time": "2025-10-19T03:00:00Z",
    "last_execution_status": "completed",
    "last_deleted_count": 86400,
    "created_at": "2025-10-01T12:00:00Z",
    "updated_at": "2025-10-01T12:00:00Z",
}

surface = Surface("retention", "Retention", "Rows older than a policy allows are removed, every night and on demand.")


class PolicyPath(BaseModel):
    policy_id: int = Field(ge=1, le=2**63 - 1, description="Number of the policy")


class PolicyChange(BaseModel):
    """What a caller may say about a policy; what is not said stays as it is."""

    model_config = ConfigDict(json_schema_extra={"example": {"retention_days": 30}})

    name: str | None = Field(None, max_length=200)
    database: str | None = None
    measurement: str | None = Field(None, description="null: all measurements of the database")
    retention_days: int | None = None
    duration: str | None = Field(None, description="Instead of `retention_days`: `30d`, `2w`")
    buffer_days: int | None = Field(
        None,
        description="Rows stay so many days longer; less than retention_days. 7 unless given, or what fits",
    )
    is_active: bool | None = None

    def values(self) -> dict[str, Any]:
        """What was said, under the store's names."""
        given = parse.said(self, _NULLABLE, exclude={"duration"})
        if self.duration:
            given["retention_days"] = _days(self.duration)
        return given


class NewPolicy(PolicyChange):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {name: _EXAMPLE[name] for name in ("name", "database", "measurement", "retention_days")}
        }
    )

    name: str = Field(min_length=1, max_length=200)
    database: str

    def values(self) -> dict[str, Any]:
        given = super().values()
        if "retention_days" not in given:
            raise Invalid("retention_days: Field required")
        buffer_days = min(_BUFFER_DAYS, given["retention_days"] - 1)
        return {"measurement": None, "buffer_days": buffer_days, "is_active": True} | given


class PolicyInfo(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: int
    name: str
    database: str
    measurement: str | None
    retention_days: int
    buffer_days: int
    is_active: bool
    last_execution_time: str | None
    last_execution_status: str | None
    last_deleted_count: int
    created_at: str
    updated_at: str
    warning: str | None = Field(None, description="Of a new or changed policy: what it covers is not there yet")


class PolicyDeleted(BaseModel):
    message: str


class ExecuteRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"dry_run": True, "confirm": False}})

    dry_run: bool = False
    confirm: bool = False


class Executed(BaseModel):
    policy_id: int
    policy_name: str
    deleted_count: int = Field(description="Rows; with `dry_run` those that would go")
    files_deleted: int = Field(description="Files of which no row is left")
    execution_time_ms: float
    dry_run: bool
    cutoff_date: str = Field(description="Rows before it go")
    affected_measurements: list[str]


class PolicyExecution(BaseModel):
    id: int
    policy_id: int
    execution_time: str
    status: str
    deleted_count: int
    files_deleted: int
    cutoff_date: str
    execution_duration_ms: float
    error_message: str | None


class PolicyExecutions(BaseModel):
    policy_id: int
    executions: list[PolicyExecution]


@surface.api("POST", PATH, needs="admin", answers={CREATED: PolicyInfo}, audit="retention.create")
def create_retention_policy(body: NewPolicy) -> tuple[Response, int]:
    """Make a policy. It is carried out at the next scheduled time."""
    policy = parts().upkeep.retention.policies.create(clock.now_us(), **body.values())
    _note(policy)
    return jsonify(policy_json(policy) | _warning(policy)), parse.created_status()


@surface.api(
    "GET", PATH, needs="read", answers={200: {"description": "A bare array of policies; an object for some clients"}}
)
def list_retention_policies(query: parse.ListQuery) -> Response:
    """All policies."""
    found = [policy_json(policy) for policy in parts().upkeep.retention.policies.all()]
    return parse.listed("policies", found, query)


@surface.api("GET", f"{PATH}/<int:policy_id>", needs="read", answers={200: PolicyInfo}, errors=[404])
def get_retention_policy(path: PolicyPath) -> Response:
    """One policy."""
    return jsonify(policy_json(parts().upkeep.retention.policies.get(path.policy_id)))


@surface.api(
    "PUT", f"{PATH}/<int:policy_id>", needs="admin", answers={200: PolicyInfo}, errors=[404], audit="retention.update"
)
def update_retention_policy(path: PolicyPath, body: PolicyChange) -> Response:
    """Change what is named; everything else stays."""
    policies = parts().upkeep.retention.policies
    policy = policies.update(path.policy_id, clock.now_us(), **body.values())
    _note(policy)
    return jsonify(policy_json(policy) | _warning(policy))


@surface.api(
    "DELETE", f"{PATH}/<int:policy_id>",
    needs="admin", answers={200: PolicyDeleted}, errors=[404], audit="retention.delete",
)  # fmt: skip
def delete_retention_policy(path: PolicyPath) -> Response:
    """Delete a policy and its history."""
    parts().upkeep.retention.policies.delete(path.policy_id)
    return jsonify(message="Retention policy deleted successfully")


@surface.api(
    "POST", f"{PATH}/<int:policy_id>/execute",
    needs="admin", answers={200: Executed}, errors=[404, 503], audit="retention.run",
)  # fmt: skip
def execute_retention_policy(path: PolicyPath, body: ExecuteRequest) -> Response:
    """Carry a policy out now, or with `dry_run` count what it would remove."""
    if not (body.dry_run or body.confirm):
        raise Invalid("Confirmation required to remove rows. Set confirm=true, or dry_run=true to preview.")
    policy, outcome = parts().upkeep.retention.execute(path.policy_id, clock.now_us(), dry_run=body.dry_run)
    audit.note(policy.id, name=policy.name, rows=outcome.deleted_count, dry_run=body.dry_run)
    return jsonify(
        policy_id=policy.id,
        policy_name=policy.name,
        deleted_count=outcome.deleted_count,
        files_deleted=outcome.files_deleted,
        execution_time_ms=outcome.took_ms,
        dry_run=body.dry_run,
        cutoff_date=clock.rfc3339(outcome.cutoff_at),
        affected_measurements=outcome.measurements,
    )


@surface.api("GET", f"{PATH}/<int:policy_id>/executions", needs="read", answers={200: PolicyExecutions}, errors=[404])
def list_retention_executions(path: PolicyPath, query: parse.LimitQuery) -> Response:
    """What a policy did in the last 30 days, newest first."""
    found = parts().upkeep.retention.policies.executions(path.policy_id, query.limit)
    return jsonify(policy_id=path.policy_id, executions=[_execution_json(execution) for execution in found])


def policy_json(policy: Policy) -> dict[str, Any]:
    return {
        "id": policy.id,
        "name": policy.name,
        "database": policy.database,
        "measurement": policy.measurement,
        "retention_days": policy.retention_days,
        "buffer_days": policy.buffer_days,
        "is_active": policy.is_active,
        "last_execution_time": clock.rfc3339(policy.last_execution_at),
        "last_execution_status": policy.last_execution_status,
        "last_deleted_count": policy.last_deleted_count or 0,
        "created_at": clock.rfc3339(policy.created_at),
        "updated_at": clock.rfc3339(policy.updated_at),
    }


def _note(policy: Policy) -> None:
    scope = {"database": policy.database, "measurement": policy.measurement, "retention_days": policy.retention_days}
    audit.note(policy.id, name=policy.name, **scope, is_active=policy.is_active)


def _warning(policy: Policy) -> dict[str, str]:
    """A policy may be made before the first row is written, but its name may be misspelt too."""
    text = databases.nothing_in(policy.database, policy.measurement)
    return {"warning": f"{text}; the policy will cover it"} if text else {}


def _execution_json(execution: Execution) -> dict[str, Any]:
    return {
        "id": execution.id,
        "policy_id": execution.policy_id,
        "execution_time": clock.rfc3339(execution.executed_at),
        "status": execution.status,
        "deleted_count": execution.deleted_count,
        "files_deleted": execution.files_deleted,
        "cutoff_date": clock.rfc3339(execution.cutoff_at),
        "execution_duration_ms": execution.duration_ms,
        "error_message": execution.error_message,
    }


def _days(duration: str) -> int:
    try:
        length_us = clock.parse_duration(duration)
    except ValueError as error:
        raise Invalid(f"duration: {error}") from None
    days, rest = divmod(length_us, 86_400 * clock.US_PER_S)
    if rest:
        raise Invalid("duration must be whole days, such as 30d or 2w")
    return days
