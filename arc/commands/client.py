"""A server over HTTP, for the commands: requests that work or end in one clear sentence."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Self

import requests

from arc.errors import ArcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_URL = "http://localhost:8000"
_TIMEOUT_S = (5, None)  # to connect; how long an answer takes the server decides

_PIECE_BYTES = 1 << 20


class Refused(ArcError):
    """The server said no. status: 400 to 599."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


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

        Raises Refused, or ArcError when nobody answers.
        """
        with self._explained():
            answer = self._session.request(method, self.url + path, timeout=_TIMEOUT_S, **more)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, _reason(answer))
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
            raise ArcError(f"no server answers at {self.url}; start one, or name it with --url or ARC_URL") from None
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


def _reason(answer: requests.Response) -> str:
    if answer.status_code == 401:
        return "the server refuses the token" if "Authorization" in answer.request.headers else (
            "the server wants a token; give one with --token or ARC_TOKEN"
        )  # fmt: skip
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answers {answer.status_code} {answer.reason}"
