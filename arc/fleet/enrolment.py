"""Enrolment: a secret that an admin makes and a new machine exchanges, once and within an hour, for its credential.

make -> secret (shown once, its SHA-256 stored) -> exchange -> one transaction: secret gone, credential made
Source: the remote agents specification, sections 2.20, 2.21 and 10.2, without certificates.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import bindparam, delete, insert, select, update

from arc import clock
from arc.db.fleet_tables import agents, enrolment_tokens
from arc.errors import Conflict, Denied, Invalid
from arc.fleet.agents import add_event

if TYPE_CHECKING:
    import sqlalchemy as sa

    from arc.db.engine import Database

LIFETIME_US = 3600 * clock.US_PER_S
_IDENTITY = re.compile(r"[-_.0-9a-zA-Z]{1,64}", re.ASCII)

_VALID = select(enrolment_tokens).where(
    enrolment_tokens.c.id == bindparam("id"), enrolment_tokens.c.created_at > bindparam("since")
)
_TAKE = (
    delete(enrolment_tokens)
    .where(enrolment_tokens.c.id == bindparam("secret_id"), enrolment_tokens.c.created_at > bindparam("since"))
    .returning(*enrolment_tokens.c)
)
_KNOWN = select(agents.c.project).where(agents.c.agent_id == bindparam("agent"))
_HAND_OVER = update(agents).where(agents.c.agent_id == bindparam("agent")).values(token_id=bindparam("token"))


class EnrolmentDenied(Denied):
    def __init__(self) -> None:
        super().__init__("Token not found")


class Credentials(Protocol):
    """Tokens, as arc.access has them."""

    def replace_credential(
        self, tx: sa.Connection, agent_id: str, project: str | None, organization: str | None
    ) -> tuple[int, str]: ...

    def invalidate_cache(self) -> None: ...


@dataclass(frozen=True)
class Enrolled:
    agent_id: str
    token: str
    project: str | None
    organization: str | None


class Enrolment:
    """Any thread may call it; each method is one transaction."""

    def __init__(self, db: Database, credentials: Credentials) -> None:
        self._db = db
        self._credentials = credentials

    def make(
        self, agent_id: str | None, project: str | None, organization: str | None, created_by: str, now_us: int
    ) -> str:
        """A new secret. agent_id: the only identity it is good for; None leaves it to the machine. Raises Invalid."""
        if agent_id is not None:
            check_identity(agent_id)
        secret = "e" + secrets.token_urlsafe(32)  # never begins like an option of a command line
        row = {"id": _hash(secret), "agent_id": agent_id, "project": project, "organization": organization}
        with self._db.transaction() as tx:
            tx.execute(insert(enrolment_tokens).values(row | {"created_at": now_us, "created_by": created_by}))
        return secret

    def check(self, secret: str, now_us: int) -> None:
        """Raises EnrolmentDenied unless the secret could be exchanged now."""
        with self._db.read() as connection:
            if connection.execute(_VALID, {"id": _hash(secret), "since": now_us - LIFETIME_US}).first() is None:
                raise EnrolmentDenied

    def exchange(self, secret: str, identity: str, now_us: int) -> Enrolled:
        """The credential of an agent; one that the identity had before is gone. A failed exchange uses up nothing.

        Raises EnrolmentDenied, Invalid, Conflict when the identity is taken in another project.
        """
        with self._db.transaction() as tx:
            made = tx.execute(_TAKE, {"secret_id": _hash(secret), "since": now_us - LIFETIME_US}).one_or_none()
            if made is None:
                raise EnrolmentDenied
            agent_id = made.agent_id or identity
            check_identity(agent_id)
            if identity and identity != agent_id:
                raise Invalid(f"this enrolment token is for {agent_id!r}")
            known = tx.execute(_KNOWN, {"agent": agent_id}).one_or_none()
            if known is not None and made.project is not None and known.project != made.project:
                raise Conflict(f"{agent_id!r} belongs to another project")
            token_id, token = self._credentials.replace_credential(tx, agent_id, made.project, made.organization)
            tx.execute(_HAND_OVER, {"agent": agent_id, "token": token_id})
            add_event(tx, agent_id, "enrolled", now_us, f"token made by {made.created_by}")
        self._credentials.invalidate_cache()
        return Enrolled(agent_id, token, made.project, made.organization)

    def prune(self, now_us: int) -> int:
        """Forget secrets that are too old."""
        with self._db.transaction() as tx:
            old = enrolment_tokens.c.created_at <= now_us - LIFETIME_US
            return tx.execute(delete(enrolment_tokens).where(old)).rowcount


def check_identity(agent_id: str) -> None:
    """Raises Invalid."""
    if not _IDENTITY.fullmatch(agent_id):
        raise Invalid("identity must have 1 to 64 of the characters A-Z, a-z, 0-9, dot, hyphen and underscore")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
