"""Tokens: made here, shown once, kept as SHA-256, checked on every request.

secret -> SHA-256 -> cache | row of api_tokens -> Identity -> may(permission)
The secret is 256 random bits, so a fast hash is enough: there is nothing to guess. A cached answer
ends with its time, and at once with any change of a token, also one that another process makes in SQLite.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from arc import clock
from arc.db.tables import api_tokens
from arc.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated, Unavailable
from arc.loop import PeriodicLoop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Row

    from arc.db.engine import Database

log = logging.getLogger(__name__)

PERMISSIONS = ("read", "write", "delete", "admin", "agent")
ADMIN_PERMISSIONS = ("read", "write", "delete", "admin")
CACHE_SIZE = 10_000  # tokens; one that a whole fleet does not fit in would never hit

_SECRET_BYTES = 32
_BY_HASH = select(api_tokens).where(api_tokens.c.token_hash == bindparam("hash"))
_BY_ID = select(api_tokens).where(api_tokens.c.id == bindparam("id"))
_ALL = select(api_tokens).order_by(api_tokens.c.id)
_COUNT = select(func.count()).select_from(api_tokens)
_TOUCH = (
    update(api_tokens)
    .where(api_tokens.c.id == bindparam("token"))
    .values(last_used_at=bindparam("used_at"))
)  # fmt: skip


class TokenNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Token not found")


@dataclass(frozen=True)
class Identity:
    """Who sent a request. token_id is None for everyone while [auth] is off; agent_id: the one agent it speaks for."""

    token_id: int | None
    name: str
    permissions: frozenset[str]
    project: str | None = None
    organization: str | None = None
    agent_id: str | None = None

    def may(self, permission: str) -> bool:
        """Whether it holds the permission; admin implies all but agent."""
        return permission in self.permissions or ("admin" in self.permissions and permission != "agent")

    def require(self, permission: str) -> None:
        """Raises Denied."""
        if not self.may(permission):
            raise Denied(f"Permission denied: {permission} permission required")


EVERYONE = Identity(None, "anonymous", frozenset(PERMISSIONS))  # whoever calls while [auth] enabled = false


@dataclass(frozen=True)
class Token:
    """One token without its secret. Instants are microseconds since the epoch, UTC."""

    id: int
    name: str
    description: str
    permissions: tuple[str, ...]
    created_at: int
    last_used_at: int | None
    enabled: bool
    expires_at: int | None
    project: str | None
    organization: str | None
    agent_id: str | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Token:
        values = dict(row._mapping)
        del values["token_hash"]
        held = values.pop("permissions")
        return cls(**values, permissions=tuple(held.split(",")) if held else ())

    def identity(self) -> Identity:
        held = frozenset(self.permissions)
        return Identity(self.id, self.name, held, self.project, self.organization, self.agent_id)

    def is_good(self, now_us: int) -> bool:
        return self.enabled and (self.expires_at is None or now_us < self.expires_at)


@dataclass(frozen=True)
class _Checked:
    """A cached answer; good until `until` (monotonic seconds) while the state is the same."""

    token: Token
    identity: Identity
    until: float
    state: tuple[int, int]


class TokenStore:
    """Tokens in the metadata database. Any thread may call it.

    cache_ttl_s: seconds a checked token is remembered; 0 asks the database every time.
    """

    def __init__(self, db: Database, cache_ttl_s: float = 300) -> None:
        self.cache_ttl_s = cache_ttl_s
        self._db = db
        self._lock = threading.Lock()  # guards everything below; never held while the database works
        self._cache: OrderedDict[str, _Checked] = OrderedDict()
        self._used_at: dict[int, int] = {}
        self._changes = 0
        self._hits = 0
        self._misses = 0

    def authenticate(self, secret: str) -> Identity:
        """Raises Unauthenticated when the secret is unknown, expired or revoked."""
        return self._check(secret)[1]

    def verify(self, secret: str) -> Token:
        """The token of a secret. Raises Unauthenticated."""
        return self._check(secret)[0]

    def create(
        self,
        name: str,
        description: str = "",
        permissions: Iterable[str] = ("read", "write"),
        expires_at_us: int | None = None,
        project: str | None = None,
        organization: str | None = None,
        agent_id: str | None = None,
    ) -> tuple[Token, str]:
        """A new token and its secret, which is nowhere else. Raises Invalid."""
        values = {"name": name, "description": description, "permissions": permissions, "expires_at": expires_at_us}
        secret = new_secret()
        with self._db.transaction() as tx:
            token = _insert(tx, secret, **values, project=project, organization=organization, agent_id=agent_id)
        return token, secret

    def replace_credential(
        self, tx: Connection, agent_id: str, project: str | None, organization: str | None
    ) -> tuple[int, str]:
        """The token `agent:<agent_id>` anew, inside a transaction of the caller: its id and its secret.

        The caller calls invalidate_cache() when that is committed. Raises Conflict when the one there is of another
        project, Invalid.
        """
        name, secret = f"agent:{agent_id}", new_secret()
        found = tx.execute(select(api_tokens.c.project).where(api_tokens.c.name == name)).one_or_none()
        if found is not None and project is not None and found.project != project:
            raise Conflict(f"{agent_id!r} belongs to another project")
        tx.execute(delete(api_tokens).where(api_tokens.c.name == name))
        values = {"name": name, "description": "Credential of an agent", "permissions": ("agent",)}
        token = _insert(tx, secret, **values, project=project, organization=organization, agent_id=agent_id)
        return token.id, secret

    def list(self) -> list[Token]:
        """All tokens by id."""
        self.write_last_used()
        with self._db.read() as connection:
            return [Token.from_row(row) for row in connection.execute(_ALL)]

    def get(self, token_id: int) -> Token:
        """Raises TokenNotFound."""
        self.write_last_used()
        with self._db.read() as connection:
            return _one(connection, token_id)

    def update(self, token_id: int, **changes: Any) -> Token:
        """Change name, description, permissions, enabled, expires_at, project or organization.

        Raises TokenNotFound, Invalid.
        """
        return self._change(token_id, _validated(changes))

    def rotate(self, token_id: int) -> tuple[Token, str]:
        """A new secret for the token; the old one is dead when this returns. Raises TokenNotFound."""
        secret = new_secret()
        return self._change(token_id, {"token_hash": _hash(secret)}), secret

    def revoke(self, token_id: int) -> Token:
        """Raises TokenNotFound."""
        return self._change(token_id, {"enabled": False})

    def delete(self, token_id: int) -> Token:
        """Returns what it was. Raises TokenNotFound."""
        with self._db.transaction() as tx:
            token = _one(tx, token_id)
            tx.execute(delete(api_tokens).where(api_tokens.c.id == token_id))
        self.invalidate_cache()
        return token

    def bootstrap(self, secret: str | None = None) -> str | None:
        """Make the token `admin` if there is no token at all.

        secret: what it shall be; None makes one up.
        Returns a secret that was made up, to be shown once.
        """
        with self._db.transaction() as tx:
            if tx.scalar(_COUNT):
                return None
            made = secret or new_secret()
            _insert(tx, made, name="admin", description="First admin token", permissions=ADMIN_PERMISSIONS)
        return None if secret else made

    def recover(self, secret: str | None = None) -> str | None:
        """Make the admin token `arc-recovery` anew; all others stay. Returns as bootstrap() does."""
        made = secret or new_secret()
        with self._db.transaction() as tx:
            if tx.execute(_BY_HASH, {"hash": _hash(made)}).first():
                return None  # the configured secret already opens the door
            tx.execute(delete(api_tokens).where(api_tokens.c.name == "arc-recovery"))
            _insert(tx, made, name="arc-recovery", description="Made by force_bootstrap", permissions=ADMIN_PERMISSIONS)
        self.invalidate_cache()
        return None if secret else made

    def invalidate_cache(self) -> None:
        with self._lock:
            self._changes += 1
            self._cache.clear()

    def cache_stats(self) -> dict[str, Any]:
        with self._lock:
            size, hits, misses = len(self._cache), self._hits, self._misses
        return {
            "cache_size": size,
            "cache_ttl_seconds": self.cache_ttl_s,
            "total_requests": hits + misses,
            "cache_hits": hits,
            "cache_misses": misses,
            "hit_rate_percent": round(100 * hits / (hits + misses), 2) if hits + misses else 0.0,
        }

    def write_last_used(self) -> int:
        """Store when tokens were used since the last call; returns how many. Requests only note it in memory."""
        with self._lock:
            used, self._used_at = self._used_at, {}
        if used:
            with self._db.transaction() as tx:
                tx.execute(_TOUCH, [{"token": token_id, "used_at": at} for token_id, at in used.items()])
        return len(used)

    def _check(self, secret: str) -> tuple[Token, Identity]:
        key, now_us = _hash(secret), clock.now_us()
        # Taken before the row is read: a change that lands in between makes the new entry stale, not wrong.
        state = (self._changes, self._db.changes_of("api_tokens"))
        checked = self._cached(key, state) or self._look_up(key, state)
        if checked is None or not checked.token.is_good(now_us):
            raise Unauthenticated("Invalid or missing API token")
        with self._lock:
            self._used_at[checked.token.id] = now_us
        return checked.token, checked.identity

    def _cached(self, key: str, state: tuple[int, int]) -> _Checked | None:
        with self._lock:
            found = self._cache.get(key)
            if found is None or found.state != state or time.monotonic() >= found.until:
                self._misses += 1
                return None
            self._hits += 1
            self._cache.move_to_end(key)
            return found

    def _look_up(self, key: str, state: tuple[int, int]) -> _Checked | None:
        with self._db.read() as connection:
            row = connection.execute(_BY_HASH, {"hash": key}).first()
        if row is None or not hmac.compare_digest(row.token_hash, key):
            return None
        token = Token.from_row(row)
        checked = _Checked(token, token.identity(), time.monotonic() + self.cache_ttl_s, state)
        with self._lock:
            self._cache[key] = checked
            self._cache.move_to_end(key)
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return checked

    def _change(self, token_id: int, values: dict[str, Any]) -> Token:
        with self._db.transaction() as tx:
            token = _one(tx, token_id)
            if values:
                _guard(tx, update(api_tokens).where(api_tokens.c.id == token_id).values(values), values.get("name"))
                token = _one(tx, token_id)
        self.invalidate_cache()
        return token


class LastUsedWriter(PeriodicLoop):
    """Stores the times at which tokens were used, and once more at the stop."""

    name = "token-use"

    def __init__(self, tokens: TokenStore, interval_s: float = 10.0) -> None:
        super().__init__(interval_s)
        self._tokens = tokens

    def step(self, now_us: int) -> int:
        return self._tokens.write_last_used()

    def stop(self, timeout_s: float = 10.0) -> None:
        super().stop(timeout_s)
        try:
            self._tokens.write_last_used()
        except Unavailable as error:  # a stop on a full disk is still a clean one
            log.warning("token-use: the last times of use are not stored: %s", error)


def _insert(tx: Connection, secret: str, **values: Any) -> Token:
    row = _validated(values) | {"token_hash": _hash(secret), "created_at": clock.now_us(), "enabled": True}
    created = _guard(tx, insert(api_tokens).values(row).returning(*api_tokens.c), row["name"])
    return Token.from_row(created.one())


def _guard(tx: Connection, statement: Any, name: str | None) -> Any:
    try:
        return tx.execute(statement)
    except IntegrityError:
        raise Invalid(f"Token with name {name!r} already exists") from None


def _one(connection: Connection, token_id: int) -> Token:
    row = connection.execute(_BY_ID, {"id": token_id}).first()
    if row is None:
        raise TokenNotFound
    return Token.from_row(row)


def _validated(values: dict[str, Any]) -> dict[str, Any]:
    """Column values; Invalid names the first that breaks a rule."""
    for name, value in values.items():
        if isinstance(value, str) and "\0" in value:  # PostgreSQL takes it in no text
            raise Invalid(f"{name} must not contain U+0000")
    return {name: _FIELDS[name](value) for name, value in values.items()}


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= 100:
        raise Invalid("name must be a text of 1 to 100 characters")
    return value.strip()


def _description(value: Any) -> str:
    if not isinstance(value or "", str) or len(value or "") > 500:
        raise Invalid("description must be a text of at most 500 characters")
    return value or ""


def _permissions(value: Any) -> str:
    """`read, write` or a list of them, as it is stored: each once, in the order of PERMISSIONS."""
    asked = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(asked, list | tuple | set | frozenset):
        raise Invalid("permissions must be a list or a comma-separated text")
    for permission in asked:
        if permission not in PERMISSIONS:
            raise Invalid(f"unknown permission {permission!r}; there are {', '.join(PERMISSIONS)}")
    return ",".join(permission for permission in PERMISSIONS if permission in asked)


def _instant(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise Invalid("expires_at must be microseconds since the epoch")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid("enabled must be true or false")
    return value


def _label(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= 100):
        raise Invalid("project and organization must be texts of 1 to 100 characters")
    return value


def _agent_id(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not 1 <= len(value) <= 255):
        raise Invalid("agent_id must be a text of 1 to 255 characters")
    return value


_FIELDS = {
    "name": _name,
    "description": _description,
    "permissions": _permissions,
    "expires_at": _instant,
    "enabled": _flag,
    "project": _label,
    "organization": _label,
    "agent_id": _agent_id,
}


def new_secret() -> str:
    """256 random bits as text that does not begin like an option of a command line."""
    while (secret := secrets.token_urlsafe(_SECRET_BYTES)).startswith("-"):
        pass
    return secret


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
