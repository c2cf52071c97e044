"""Secrets at rest: sealed with a key that only its owner can read, and unreadable without it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from arc.errors import ConfigError
from arc.jobs.sealing import KEY_BYTES, Sealer, WrongKey, is_sealed, load_key
from tests.unit.jobsrig import JobsRig

if TYPE_CHECKING:
    from pathlib import Path

SECRETIVE = """
name: uses {t}
secrets: {{token: {t}}}
tasks: [{{name: a, var: x, env: {{T: "{{{{ secrets.token }}}}"}}, run: "true"}}]
output: "{{{{ tasks.x }}}}"
"""


def test_what_is_sealed_can_be_opened_and_never_looks_the_same() -> None:
    sealer = Sealer(b"k" * KEY_BYTES)

    first, second = sealer.seal("päss"), sealer.seal("päss")

    assert first != second
    assert is_sealed(first)
    assert sealer.open(first) == sealer.open(second) == "päss"
    with pytest.raises(WrongKey):
        Sealer(b"x" * KEY_BYTES).open(first)


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    key = load_key("", tmp_path / "secrets")

    assert load_key("", tmp_path / "secrets") == key
    assert len(key) == KEY_BYTES
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secrets" / "jobs.key").stat().st_mode & 0o777 == 0o600


def test_a_passphrase_needs_no_file(tmp_path: Path) -> None:
    assert load_key("open sesame", tmp_path / "secrets") == hashlib.sha256(b"open sesame").digest()
    assert not (tmp_path / "secrets").exists()


def test_a_damaged_key_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "jobs.key").write_bytes(b"short")

    with pytest.raises(ConfigError, match="must hold 32 bytes"):
        load_key("", tmp_path)


def test_secrets_are_on_disk_only_sealed(tmp_path: Path) -> None:
    with JobsRig(tmp_path) as rig:
        job = rig.begin(SECRETIVE.format(t="hush-hush"))
        claim = rig.claim()
        rig.complete(claim, "result hush-hush")
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())

        assert claim.task.definition["env"] == {"T": "hush-hush"}
        assert rig.job(job).secrets == {"token": "hush-hush"}
        assert rig.job(job).result == "result hush-hush"
        assert rig.tasks(job)[0].result == "result hush-hush"
        assert rig.job(job).name == "uses [REDACTED]"
        assert b"hush" not in files


def test_jobs_without_secrets_are_stored_as_they_are(tmp_path: Path) -> None:
    with JobsRig(tmp_path) as rig:
        job = rig.begin("{name: plain, tasks: [{name: a, run: 'true'}]}")
        rig.complete(rig.claim(), "enc:looks sealed")

        assert not rig.job(job).is_sealed
        assert rig.tasks(job)[0].result == "enc:looks sealed"


def test_passwords_of_registries_are_sealed_too(tmp_path: Path) -> None:
    with JobsRig(tmp_path) as rig:
        job = rig.begin("{name: p, tasks: [{name: a, image: i, registry: {username: u, password: geheim}}]}")

        assert rig.job(job).is_sealed
        assert b"geheim" not in b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_without_the_key_jobs_are_shown_as_encrypted_and_fail(tmp_path: Path) -> None:
    with JobsRig(tmp_path) as rig:
        done, waiting = rig.begin(SECRETIVE.format(t="hush-hush")), SECRETIVE.format(t="other")
        rig.complete(rig.claim(), "result")
        waiting_id = rig.submit(waiting).id
    with JobsRig(tmp_path, key=b"x" * KEY_BYTES) as rig:
        rig.coordinator.start_pending(0)

        assert rig.job(done).result == "[encrypted]"
        assert rig.job(done).secrets == {}
        assert rig.tasks(done)[0].definition == {}
        failed = rig.reader.job(waiting_id)
        assert failed.state == "FAILED"
        assert [job.id for job in rig.reader.list_jobs(1, 10).items] == [waiting_id, done.id]
