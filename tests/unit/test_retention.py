"""Retention: the cutoff, what goes and what stays, schedule and history; the property test compares with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arc.errors import Invalid, NotFound, Unavailable
from tests.unit.rig import DAY, NOW, SECOND, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arc.metrics.upkeep.retention import Outcome, Policy


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as opened:
        yield opened


def policy(rig: Rig, **values: Any) -> Policy:
    days = {"retention_days": 30, "buffer_days": 2}
    given = {"name": "p", "database": "default", "measurement": "cpu", "is_active": True, **days}
    return rig.upkeep.retention.policies.create(NOW, **given | values)


def execute(rig: Rig, policy_id: int, *, dry_run: bool = False) -> Outcome:
    return rig.upkeep.retention.execute(policy_id, NOW, dry_run=dry_run)[1]


def write_days(rig: Rig, *days: float, measurement: str = "cpu") -> None:
    """One file with a row of each age."""
    rig.write(measurement, time=[int(NOW - day * DAY) for day in days], age=[float(day) for day in days])
    rig.store.flush()


def ages(rig: Rig, measurement: str = "cpu") -> list[float]:
    return [age for (age,) in rig.query(f"SELECT age FROM {measurement} ORDER BY age")]


def test_rows_older_than_retention_and_buffer_go(rig: Rig) -> None:
    write_days(rig, 40, 33)
    write_days(rig, 32.001, 32, 31.999, 1)
    number = policy(rig).id

    planned, done = execute(rig, number, dry_run=True), execute(rig, number)

    assert ages(rig) == [1, 31.999, 32]
    for outcome in (planned, done):
        assert (outcome.cutoff_at, outcome.deleted_count) == (NOW - 32 * DAY, 3)
        assert (outcome.files_deleted, outcome.measurements) == (1, ["cpu"])
    assert execute(rig, number).deleted_count == 0


def test_a_policy_without_measurement_covers_its_database_only(rig: Rig) -> None:
    write_days(rig, 1, 100)
    write_days(rig, 1, 100, measurement="mem")
    rig.write("cpu", "other", time=[NOW - 100 * DAY], age=[100.0])

    outcome = execute(rig, policy(rig, measurement=None).id)

    assert (outcome.deleted_count, sorted(outcome.measurements)) == (2, ["cpu", "mem"])
    assert (ages(rig), ages(rig, "mem"), ages(rig, "other.cpu")) == ([1], [1], [100])


def test_buffered_rows_may_be_too_old_as_well(rig: Rig) -> None:
    rig.write(time=[NOW - 100 * DAY, NOW], age=[100.0, 0.0])

    assert execute(rig, policy(rig).id).deleted_count == 1
    assert ages(rig) == [0]


def test_one_row_of_a_merged_file_goes_alone(rig: Rig) -> None:
    for day in range(20, 40):
        write_days(rig, day)
    rig.compact()
    assert len(rig.files()) == 1

    assert execute(rig, policy(rig).id).deleted_count == 7
    assert ages(rig) == list(range(20, 33))


def test_a_failing_measurement_is_reported_and_the_others_are_done(rig: Rig) -> None:
    write_days(rig, 100)
    write_days(rig, 100, measurement="mem")
    rig.files()[0].path.unlink()
    rig.reopen()
    number = policy(rig, measurement=None).id

    with pytest.raises(Unavailable, match="Retention policy 'p' failed: cpu"):
        execute(rig, number)

    [execution] = rig.upkeep.retention.policies.executions(number, 10)
    assert (execution.status, execution.deleted_count) == ("failed", 1)
    assert execution.error_message is not None
    assert execution.error_message.startswith("cpu: IO Error")
    assert rig.upkeep.retention.policies.get(number).last_execution_status == "failed"


def test_the_schedule_carries_out_active_policies_and_leaves_history(rig: Rig) -> None:
    write_days(rig, 1, 100)
    write_days(rig, 1, 100, measurement="mem")
    active, idle = policy(rig), policy(rig, name="idle", measurement="mem", is_active=False)
    retention = rig.upkeep.retention

    retention.due_us = NOW

    assert retention.step(NOW - 1) == 0
    assert retention.step(NOW) == 1
    assert retention.step(NOW) == 0

    assert (ages(rig), ages(rig, "mem")) == ([1], [1, 100])
    [execution] = retention.policies.executions(active.id, 10)
    assert (execution.executed_at, execution.status, execution.deleted_count) == (NOW, "completed", 1)
    assert retention.policies.executions(idle.id, 10) == []
    changed = retention.policies.get(active.id)
    assert (changed.last_execution_at, changed.last_deleted_count) == (NOW, 1)
    with pytest.raises(Invalid, match="not active"):
        execute(rig, idle.id)


def test_what_came_due_while_no_server_ran_is_made_up_for(rig: Rig) -> None:
    policy(rig)

    rig.reopen()

    assert rig.upkeep.retention.due_us == NOW + 15 * 3600 * SECOND  # 03:00 after the policy was made
    assert rig.upkeep.retention.step(NOW + DAY) == 0
    assert rig.upkeep.retention.due_us > NOW + DAY


def test_a_trigger_runs_everything_even_when_the_schedule_is_off(tmp_path: Path) -> None:
    with Rig(tmp_path, **{"retention.enabled": "false"}) as rig:
        write_days(rig, 1, 100)
        policy(rig)
        retention = rig.upkeep.retention

        assert retention.step(retention.due_us) == 0
        retention.trigger()
        assert retention.step(NOW) == 1


def test_policies_are_checked_and_changed_key_by_key(rig: Rig) -> None:
    policies = rig.upkeep.retention.policies
    first = policy(rig)

    with pytest.raises(Invalid, match="Retention policy with name 'p' already exists"):
        policy(rig)
    for values, complaint in (
        ({"retention_days": 7, "buffer_days": 7}, "retention_days must be greater than buffer_days"),
        ({"retention_days": 0}, "retention_days must be"),
        ({"retention_days": 10**9}, "retention_days must be"),
        ({"buffer_days": -1}, "buffer_days must be"),
        ({"database": "../x"}, "invalid database name"),
        ({"measurement": "a/b"}, "invalid measurement name"),
    ):
        with pytest.raises(Invalid, match=complaint):
            policy(rig, **{"name": "q"} | values)
        with pytest.raises(Invalid, match=complaint):
            policies.update(first.id, NOW, **values)

    changed = policies.update(first.id, NOW + 5, retention_days=90)

    assert (changed.retention_days, changed.buffer_days, changed.measurement) == (90, 2, "cpu")
    assert (changed.created_at, changed.updated_at) == (NOW, NOW + 5)
    assert policies.all() == [changed]
    execute(rig, first.id)
    policies.delete(first.id)
    for call in (policies.get, policies.delete, lambda number: policies.executions(number, 1)):
        with pytest.raises(NotFound, match="Retention policy not found"):
            call(first.id)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.tuples(st.sampled_from(["cpu", "mem", "disk"]), st.lists(st.integers(0, 60), min_size=1, max_size=8)),
        min_size=1,
        max_size=5,
    ),
    measurement=st.sampled_from(["cpu", "mem", None]),
    retention_days=st.integers(2, 50),
    buffer_days=st.integers(0, 1),
    data=st.data(),
)
def test_exactly_the_rows_before_the_cutoff_go(
    rig: Rig, batches: list[Any], measurement: str | None, retention_days: int, buffer_days: int, data: st.DataObject
) -> None:
    model: dict[str, list[float]] = {"cpu": [], "mem": [], "disk": []}
    for name in model:  # what earlier examples left
        rig.write(name, time=[NOW - 90 * DAY], age=[90.0])
    cleaner = policy(rig, measurement=None, retention_days=1, buffer_days=0)
    rig.upkeep.retention.execute(cleaner.id, NOW + 200 * DAY)
    rig.upkeep.retention.policies.delete(cleaner.id)
    for name, days in batches:
        rig.write(name, time=[NOW - day * DAY for day in days], age=[float(day) for day in days])
        model[name] += days
        if data.draw(st.booleans(), label="flush"):
            rig.store.flush()
    if data.draw(st.booleans(), label="compact"):
        rig.compact()
    number = policy(rig, measurement=measurement, retention_days=retention_days, buffer_days=buffer_days).id

    planned, done = execute(rig, number, dry_run=True), execute(rig, number)

    kept = {
        name: [day for day in days if day <= retention_days + buffer_days or measurement not in (None, name)]
        for name, days in model.items()
    }
    assert {name: ages(rig, name) for name in model} == {name: sorted(days) for name, days in kept.items()}
    expected = sum(map(len, model.values())) - sum(map(len, kept.values()))
    assert planned.deleted_count == done.deleted_count == expected
    assert planned.files_deleted == done.files_deleted
    rig.upkeep.retention.policies.delete(number)
