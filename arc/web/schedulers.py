"""The schedulers of retention and of continuous queries: how they stand, and a push."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict

from arc import clock
from arc.errors import Invalid
from arc.web.parts import parts
from arc.web.surface import Surface

surface = Surface("schedulers", "Schedulers", "What runs by itself: retention and continuous queries.")


class Schedulers(BaseModel):
    cq_scheduler: dict[str, Any]
    retention_scheduler: dict[str, Any]


class Reloaded(BaseModel):
    message: str
    job_count: int


class TriggerRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"confirm": False}})

    confirm: bool = False


class RetentionTriggered(BaseModel):
    message: str


@surface.api("GET", "/api/v1/schedulers", needs="read", answers={200: Schedulers})
def list_schedulers() -> Response:
    """Whether they run, and when next."""
    retention, continuous = parts().upkeep.retention, parts().upkeep.continuous
    return jsonify(
        cq_scheduler={
            "enabled": continuous.options.enabled,
            "running": continuous.is_running,
            "job_count": _active_queries(),
        },
        retention_scheduler={
            "enabled": retention.enabled,
            "running": retention.is_running,
            "schedule": retention.schedule.expression,
            "next_run": clock.rfc3339(retention.due_us),
        },
    )


@surface.api("POST", "/api/v1/schedulers/cq/reload", needs="admin", answers={200: Reloaded})
def reload_continuous_queries() -> Response:
    """Look for due continuous queries now. Changes of them count by themselves, so nobody needs this."""
    parts().upkeep.continuous.wake()
    return jsonify(message="Continuous queries reloaded", job_count=_active_queries())


@surface.api(
    "POST", "/api/v1/schedulers/retention/trigger",
    needs="admin", answers={200: RetentionTriggered}, audit="retention.run",
)  # fmt: skip
def trigger_retention(body: TriggerRequest) -> Response:
    """Carry out all active retention policies now, in the background, as the schedule would.

    Where `[retention] enabled = false` keeps the schedule from removing rows, this takes `"confirm": true`.
    """
    retention = parts().upkeep.retention
    if not (retention.enabled or body.confirm):
        raise Invalid(
            "Scheduled retention is switched off ([retention] enabled = false)."
            " Set confirm=true to carry out all active policies all the same."
        )
    retention.trigger()
    return jsonify(message="Retention triggered successfully")


def _active_queries() -> int:
    return sum(query.is_active for query in parts().upkeep.continuous.queries.all())
