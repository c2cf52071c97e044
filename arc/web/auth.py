"""Who asks, and may they: reads the token from a request and checks it against what a route needs.

Works on the WSGI environment, so Flask and the hot write routes ahead of it share it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from arc.access.tokens import EVERYONE, Identity
from arc.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import WSGIEnvironment

    from arc.access.tokens import TokenStore

PUBLIC: Final = "public"  # what a route needs: nothing
ANY: Final = "any"  # what a route needs: a valid token, whatever it may do

IDENTITY_KEY = "arc.identity"
# InfluxDB 1.x clients can put their password nowhere else. Elsewhere a secret in a URL would only leak into logs.
QUERY_TOKEN_PATHS = frozenset({"/write", "/api/v1/write", "/api/v2/write", "/query", "/api/v1/query"})


class Gate:
    """Lets a request in or raises.

    public: paths that need no token; an entry ending in `/*` covers everything below it.
    """

    def __init__(self, tokens: TokenStore, *, enabled: bool, public: Iterable[str]) -> None:
        self._tokens = tokens
        self._enabled = enabled
        entries = [entry.strip() for entry in public if entry.strip()]
        self._paths = frozenset(entry for entry in entries if not entry.endswith("*"))
        self._prefixes = tuple(entry.rstrip("*").rstrip("/") for entry in entries if entry.endswith("*"))

    def is_public(self, path: str) -> bool:
        return path in self._paths or any(path == p or path.startswith(p + "/") for p in self._prefixes)

    def admit(self, environ: WSGIEnvironment, needs: str) -> None:
        """Find out who asks and keep the identity with the request.

        needs: a permission, ANY or PUBLIC. Raises Unauthenticated, Denied.
        """
        if needs == PUBLIC or self.is_public(environ["PATH_INFO"]):
            return
        identity = environ[IDENTITY_KEY] = self.identify(environ)
        if needs != ANY:
            identity.require(needs)

    def identify(self, environ: WSGIEnvironment) -> Identity:
        if not self._enabled:
            return EVERYONE
        secret = secret_of(environ)
        if not secret:
            raise Unauthenticated("Invalid or missing API token")
        return self._tokens.authenticate(secret)


def secret_of(environ: WSGIEnvironment) -> str:
    """The token a request carries, "" without one. The first transport present decides, even if its token is bad."""
    if "HTTP_AUTHORIZATION" in environ:
        return _from_authorization(environ["HTTP_AUTHORIZATION"])
    for header in ("HTTP_X_API_KEY", "HTTP_X_AUTH_TOKEN"):
        if header in environ:
            return str(environ[header]).strip()
    if environ["PATH_INFO"] in QUERY_TOKEN_PATHS and "p=" in environ.get("QUERY_STRING", ""):
        args: dict[str, list[str]] = parse_qs(environ["QUERY_STRING"])
        return args.get("p", [""])[0]
    return ""


def _from_authorization(value: str) -> str:
    """Bearer T, Token T, Basic base64(anyone:T), or the bare token."""
    scheme, _, rest = value.strip().partition(" ")
    if not rest:
        return scheme
    if scheme.lower() in ("bearer", "token"):
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
