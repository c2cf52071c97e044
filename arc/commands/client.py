"""A server over HTTP, for the commands: requests that work or end in one clear sentence."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Self

import requests

from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT_URL = "http://localhost:8000"
_TIMEOUT_S = (5, None)  # to connect; how long an answer takes the server decides

_PIECE_BYTES = 1 << 20


class NoAnswer(ArcError):
    """Nobody listens there, or the connection broke."""


class Refused(ArcError):
    """The server said no. lines: the bad ones of line protocol, with `line_number`, `reason` and `text`."""

    def __init__(self, text: str, lines: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(text)
        self.lines = lines


class Client:
    """One connection to a server; `with` closes it."""

    def __init__(self, url: str | None, token: str | None) -> None:
        self.url = (url or DEFAULT_URL).rstrip("/")
        if "://" not in self.url:
            self.url = f"http://{self.url}"
        self._session = requests.Session()
        self._session.trust_env = False  # a ~/.netrc must not take the place of the token
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """An answer below 400. more: as requests takes it; None among headers or params is left out.

        Raises Refused, or NoAnswer.
        """
        with self._explained():
            answer = self._session.request(method, self.url + path, timeout=_TIMEOUT_S, **more)
        if answer.status_code >= 400:
            raise _refusal(answer)
        return answer

    def pieces(self, answer: requests.Response) -> Iterator[bytes]:
        """The body of an answer to a request with stream=True."""
        with answer, self._explained():
            yield from answer.iter_content(_PIECE_BYTES)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except requests.ConnectionError:
            raise NoAnswer(f"no server answers at {self.url}; start one, or name it with --url or ARC_URL") from None
        except (requests.RequestException, UnicodeError) as error:
            raise ArcError(f"{self.url}: {error}") from None


class Upload:
    """A file as the body of a request that tells how far it got."""

    def __init__(self, file: IO[bytes], size: int, advance: Callable[[int], None]) -> None:
        self._file, self._size, self._advance = file, size, advance

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._advance(len(piece))
        return piece


def _refusal(answer: requests.Response) -> Refused:
    if answer.status_code == 401:
        has_token = "Authorization" in answer.request.headers
        wanted = "the server wants a token; give one with --token or ARC_TOKEN"
        return Refused("the server refuses the token" if has_token else wanted)
    try:
        body = answer.json()
        return Refused(str(body["detail"]), body.get("errors", ()))
    except (ValueError, KeyError, TypeError):
        return Refused(f"{answer.url} answers {answer.status_code} {answer.reason}")
