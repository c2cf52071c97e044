"""API tokens over HTTP: verify, list, create, change, rotate, revoke, delete."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, field_validator

from arc import clock
from arc.access.tokens import ADMIN_PERMISSIONS, EVERYONE, Identity, Token
from arc.errors import Unauthenticated
from arc.web import audit, errors, parse
from arc.web.auth import ANY, IDENTITY_KEY
from arc.web.parts import parts
from arc.web.surface import CREATED, Surface

_EXAMPLE: dict[str, Any] = {
    "id": 2,
    "name": "telegraf",
    "description": "edge hosts",
    "permissions": ["write"],
    "enabled": True,
    "created_at": "2025-10-19T12:00:00Z",
    "last_used_at": None,
    "expires_at": None,
    "project": None,
    "organization": None,
}

surface = Surface("tokens", "Tokens", "Who may call. The secret of a token is shown once: when it is made or rotated.")

Permission = Literal["read", "write", "delete", "admin", "agent"]


class TokenPath(BaseModel):
    token_id: int = Field(ge=1, le=2**63 - 1, description="Number of the token")


class TokenFields(BaseModel):
    """What a caller may say about a token."""

    description: str | None = Field(None, max_length=500)
    permissions: list[Permission] | None = Field(None, description="A list, or a comma text")
    expires_at: str | None = Field(None, description="RFC 3339, as 2026-01-01T00:00:00Z; null: never")
    expires_in: str | None = Field(None, description="Instead of `expires_at`: `90m`, `24h`, `7d`")
    project: str | None = Field(None, min_length=1, max_length=100)
    organization: str | None = Field(None, min_length=1, max_length=100)

    @field_validator("permissions", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given

    @field_validator("expires_at")
    @classmethod
    def _check_instant(cls, given: str | None) -> str | None:
        try:
            clock.parse_rfc3339(given or "1970-01-01")
        except (ValueError, OverflowError):
            raise ValueError(f"expires_at: {given!r} is no RFC 3339 instant") from None
        return given

    @field_validator("expires_in")
    @classmethod
    def _check_duration(cls, given: str | None) -> str | None:
        try:
            clock.rfc3339(clock.now_us() + clock.parse_duration(given or "0s"))
        except ValueError as error:
            raise ValueError(f"expires_in: {error}") from None
        except OverflowError:
            raise ValueError(f"expires_in: {given} from now is after the year 9999") from None
        return given

    def values(self, now_us: int) -> dict[str, Any]:
        """What was said, under the store's names; null counts only where it means "none"."""
        given = self.model_dump(include={"name", "description", "permissions", "enabled"}, exclude_none=True)
        given |= self.model_dump(include={"project", "organization"}, exclude_unset=True)
        if self.expires_in:
            given["expires_at"] = now_us + clock.parse_duration(self.expires_in)
        elif "expires_at" in self.model_fields_set:
            given["expires_at"] = clock.parse_rfc3339(self.expires_at) if self.expires_at else None
        return given


class NewToken(TokenFields):
    model_config = ConfigDict(json_schema_extra={"example": {"name": "telegraf", "permissions": ["write"]}})

    name: str = Field(min_length=1, max_length=100)
    is_admin: bool = Field(False, description="Older spelling of all four permissions")

    def values(self, now_us: int) -> dict[str, Any]:
        given = super().values(now_us)
        if self.is_admin:
            given["permissions"] = ADMIN_PERMISSIONS
        return given | {"expires_at_us": given.pop("expires_at", None)}


class TokenChange(TokenFields):
    model_config = ConfigDict(json_schema_extra={"example": {"description": "all edge hosts", "enabled": True}})

    name: str | None = Field(None, min_length=1, max_length=100)
    enabled: bool | None = None


class TokenInfo(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: int
    name: str
    description: str
    permissions: list[Permission]
    enabled: bool
    created_at: str
    last_used_at: str | None
    expires_at: str | None
    project: str | None
    organization: str | None


class TokenList(BaseModel):
    success: bool
    status: str
    tokens: list[TokenInfo]
    data: list[TokenInfo]
    count: int


class TokenDetail(TokenInfo):
    model_config = ConfigDict(json_schema_extra={"example": {**_EXAMPLE, "success": True, "token": _EXAMPLE}})

    success: bool
    token: TokenInfo


class TokenChanged(TokenInfo):
    model_config = ConfigDict(json_schema_extra={"example": {**_EXAMPLE, "success": True, "message": "Token updated"}})

    success: bool
    message: str


class TokenSecret(TokenChanged):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {**_EXAMPLE, "success": True, "message": "...", "token": "...", "new_token": "..."}
        }
    )

    token: str = Field(description="The secret; shown here and never again")
    new_token: str = Field(description="The same")


class Done(BaseModel):
    success: bool
    message: str
    token_id: int


class Verified(BaseModel):
    valid: bool
    token_info: dict[str, Any]
    permissions: list[Permission]


class Grant(BaseModel):
    database: str
    permissions: list[Permission]
    source: str


class Grants(BaseModel):
    permissions: list[Grant]
    rbac_enabled: bool


class CacheStats(BaseModel):
    success: bool
    cache_size: int
    cache_ttl_seconds: float
    total_requests: int
    cache_hits: int
    cache_misses: int
    hit_rate_percent: float
    stats: dict[str, float]


class CacheInvalidated(BaseModel):
    success: bool
    message: str
    cache_ttl_seconds: float


@surface.errorhandler(Unauthenticated)
def on_unauthenticated(exc: Unauthenticated) -> Response:
    """Clients of /auth/verify look at `valid`."""
    return errors.respond(exc, valid=False)


@surface.api("GET", "/auth/verify", "/api/v1/auth/verify", needs=ANY, answers={200: Verified})
def verify_token() -> Response:
    """Whether the token that comes with this request is good, and what it may do; 401 when it is not."""
    identity: Identity = request.environ[IDENTITY_KEY]
    known = None if identity is EVERYONE else parts().tokens.get(identity.token_id or 0)
    info = token_json(known) if known else {"name": identity.name}
    return jsonify(valid=True, success=True, token_info=info, permissions=sorted(identity.permissions))


@surface.api("GET", "/auth/tokens", "/api/v1/auth/tokens", needs="admin", answers={200: TokenList})
def list_tokens() -> Response:
    """All tokens, without their secrets."""
    found = [token_json(token) for token in parts().tokens.list()]
    return jsonify(success=True, status="success", tokens=found, data=found, count=len(found))


@surface.api(
    "POST", "/auth/tokens", "/api/v1/auth/tokens",
    needs="admin", answers={CREATED: TokenSecret}, audit="token.create",
)  # fmt: skip
def create_token(body: NewToken) -> Response:
    """Make a token. Without `permissions` it may read and write; its secret is in this answer and nowhere else."""
    token, secret = parts().tokens.create(**body.values(clock.now_us()))
    _note(token)
    answer = _secret_answer(token, secret, "Token created; store it now, it is not shown again")
    answer.status_code = parse.created_status()
    return answer


@surface.api(
    "GET", "/auth/tokens/<int:token_id>", "/api/v1/auth/tokens/<int:token_id>",
    needs="admin", answers={200: TokenDetail}, errors=[404],
)  # fmt: skip
def get_token(path: TokenPath) -> Response:
    """One token, without its secret."""
    found = token_json(parts().tokens.get(path.token_id))
    return jsonify({**found, "success": True, "token": found})


@surface.api(
    "PATCH", "/auth/tokens/<int:token_id>", "/api/v1/auth/tokens/<int:token_id>",
    needs="admin", answers={200: TokenChanged}, errors=[404], audit="token.update",
)  # fmt: skip
def update_token(path: TokenPath, body: TokenChange) -> Response:
    """Change what is named; everything else stays. It counts from the next request on."""
    changed = parts().tokens.update(path.token_id, **body.values(clock.now_us()))
    _note(changed)
    return jsonify({**token_json(changed), "success": True, "message": "Token updated"})


@surface.api(
    "POST", "/auth/tokens/<int:token_id>/rotate", "/api/v1/auth/tokens/<int:token_id>/rotate",
    needs="admin", answers={200: TokenSecret}, errors=[404], audit="token.rotate",
)  # fmt: skip
def rotate_token(path: TokenPath) -> Response:
    """A new secret for the same token. The old one is dead when the answer arrives."""
    token, secret = parts().tokens.rotate(path.token_id)
    _note(token)
    return _secret_answer(token, secret, "Token rotated; the old secret is dead")


@surface.api(
    "POST", "/auth/tokens/<int:token_id>/revoke", "/api/v1/auth/tokens/<int:token_id>/revoke",
    needs="admin", answers={200: Done}, errors=[404], audit="token.revoke",
)  # fmt: skip
def revoke_token(path: TokenPath) -> Response:
    """Switch a token off; PATCH with `enabled: true` switches it on again."""
    _note(parts().tokens.revoke(path.token_id))
    return jsonify(success=True, message="Token revoked", token_id=path.token_id)


@surface.api(
    "DELETE", "/auth/tokens/<int:token_id>", "/api/v1/auth/tokens/<int:token_id>",
    needs="admin", answers={200: Done}, errors=[404], audit="token.delete",
)  # fmt: skip
def delete_token(path: TokenPath) -> Response:
    """Delete a token for good."""
    _note(parts().tokens.delete(path.token_id))
    return jsonify(success=True, message="Token deleted successfully", token_id=path.token_id)


@surface.api(
    "GET", "/auth/tokens/<int:token_id>/permissions", "/api/v1/auth/tokens/<int:token_id>/permissions",
    needs="admin", answers={200: Grants}, errors=[404],
)  # fmt: skip
def list_token_permissions(path: TokenPath) -> Response:
    """What a token may do where."""
    token = parts().tokens.get(path.token_id)
    grant = {"database": "*", "permissions": list(token.permissions), "source": "token"}
    return jsonify(permissions=[grant], rbac_enabled=False)


@surface.api("GET", "/auth/cache/stats", "/api/v1/auth/cache/stats", needs="admin", answers={200: CacheStats})
def token_cache_stats() -> Response:
    """How the cache of checked tokens does."""
    stats = parts().tokens.cache_stats()
    return jsonify({"success": True, **stats, "stats": stats})


@surface.api(
    "POST", "/auth/cache/invalidate", "/api/v1/auth/cache/invalidate", needs="admin", answers={200: CacheInvalidated}
)
def invalidate_token_cache() -> Response:
    """Forget all checked tokens. Changes made through Arc do so by themselves."""
    tokens = parts().tokens
    tokens.invalidate_cache()
    return jsonify(
        success=True,
        message="Authentication cache invalidated successfully",
        cache_ttl_seconds=tokens.cache_ttl_s,
    )


def token_json(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "description": token.description,
        "permissions": list(token.permissions),
        "enabled": token.enabled,
        "created_at": clock.rfc3339(token.created_at),
        "last_used_at": clock.rfc3339(token.last_used_at),
        "expires_at": clock.rfc3339(token.expires_at),
        "project": token.project,
        "organization": token.organization,
    }


def _note(token: Token) -> None:
    audit.note(token.id, name=token.name, permissions=token.permissions, enabled=token.enabled)


def _secret_answer(token: Token, secret: str, message: str) -> Response:
    return jsonify({**token_json(token), "success": True, "message": message, "token": secret, "new_token": secret})
