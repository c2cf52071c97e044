"""Enrolment: a secret that is good once, for an hour, for a credential that speaks for one agent."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from arc.errors import Conflict, Denied, Invalid, Unauthenticated
from arc.fleet.program import program
from tests.unit.fleetrig import NOW, SECOND, FleetRig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3600 * SECOND


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FleetRig]:
    with FleetRig(tmp_path) as made:
        yield made


def made(rig: FleetRig, agent_id: str | None = None, project: str | None = "plant-a") -> str:
    return rig.fleet.enrolment.make(agent_id, project, "dom1", "ada", NOW)


def test_secret_becomes_a_credential_for_one_agent(rig: FleetRig) -> None:
    enrolled = rig.fleet.enrolment.exchange(made(rig), "press-07", NOW)

    who = rig.tokens.authenticate(enrolled.token)
    assert (who.name, who.agent_id, who.permissions) == ("agent:press-07", "press-07", {"agent"})
    assert (who.project, who.organization) == ("plant-a", "dom1")
    assert [each.event for each in rig.fleet.agents.events("press-07")] == ["enrolled"]


def test_secret_is_good_once(rig: FleetRig) -> None:
    secret = made(rig)
    rig.fleet.enrolment.exchange(secret, "press-07", NOW)

    with pytest.raises(Denied, match="Token not found"):
        rig.fleet.enrolment.exchange(secret, "press-08", NOW)


def test_secret_is_good_for_an_hour(rig: FleetRig) -> None:
    secret = made(rig)
    rig.fleet.enrolment.check(secret, NOW + HOUR - 1)

    for use in (
        lambda: rig.fleet.enrolment.exchange(secret, "a", NOW + HOUR),
        lambda: rig.fleet.enrolment.check(secret, NOW + HOUR),
    ):
        with pytest.raises(Denied):
            use()
    assert rig.fleet.enrolment.prune(NOW + HOUR) == 1


@pytest.mark.parametrize("identity", ["", "a b", "ü", "x" * 65, "a\n", "../x"])
def test_refused_exchange_uses_up_nothing(rig: FleetRig, identity: str) -> None:
    secret = made(rig)

    with pytest.raises(Invalid):
        rig.fleet.enrolment.exchange(secret, identity, NOW)

    assert rig.fleet.enrolment.exchange(secret, "press-07", NOW).agent_id == "press-07"


def test_secret_for_one_identity_is_good_for_no_other(rig: FleetRig) -> None:
    secret = made(rig, "press-07")

    with pytest.raises(Invalid, match="is for 'press-07'"):
        rig.fleet.enrolment.exchange(secret, "press-08", NOW)
    assert rig.fleet.enrolment.exchange(secret, "", NOW).agent_id == "press-07"


def test_new_credential_ends_the_old_one(rig: FleetRig) -> None:
    old = rig.fleet.enrolment.exchange(made(rig), "press-07", NOW).token
    rig.tokens.authenticate(old)

    new = rig.fleet.enrolment.exchange(made(rig), "press-07", NOW).token

    with pytest.raises(Unauthenticated):
        rig.tokens.authenticate(old)
    assert rig.tokens.authenticate(new).agent_id == "press-07"


def test_identity_of_another_project_is_not_taken_over(rig: FleetRig) -> None:
    rig.fleet.enrolment.exchange(made(rig), "press-07", NOW)
    rig.register("press-08", project="plant-a")

    for identity in ("press-07", "press-08"):
        with pytest.raises(Conflict, match="belongs to another project"):
            rig.fleet.enrolment.exchange(made(rig, project="plant-b"), identity, NOW)


def test_program_holds_the_agent_and_nothing_of_the_server() -> None:
    names = zipfile.ZipFile(io.BytesIO(program())).namelist()

    assert {"__main__.py", "arc/__init__.py", "arc/actions/engine.py"} <= set(names)
    assert not [name for name in names if name.startswith(("arc/web/", "arc/db/", "arc/metrics/", "arc/jobs/"))]
