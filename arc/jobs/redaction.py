"""Keeps secrets out of what leaves the server: answers, log parts, names in the search index.

Redactor(secrets).job(answer) -> the same with [REDACTED] wherever a value of a secret stands
Redactor(secrets).stream() -> feed(piece of a log) -> what can be shown of it by now
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REDACTED = "[REDACTED]"
MIN_LINE = 8  # characters of a line that is hidden alone; a secret may have lines such as `{`
_SECRET_KEY = re.compile("SECRET|PASSWORD|ACCESS_KEY", re.IGNORECASE)
_MAPS = frozenset({"env", "headers", "inputs", "opts"})
# Ours, not the user's: a secret with the value `1` must not reach into an id.
_OURS = frozenset(
    {"id", "jobId", "parentId", "nodeId", "scheduleId", "state", "status", "position", "taskCount", "progress"}
    | {"createdAt", "scheduledAt", "startedAt", "completedAt", "failedAt", "deleteAt", "createdBy"}
    | {"schedule", "permissions", "runtime", "timeout", "retry"}
)


class Redactor:
    """Hides values of secrets, also in their JSON and URL forms. Any thread may call it.

    patterns: whole keys whose values are hidden, `*` matches anything; without any, keys that look like a secret's.
    enabled: False shows everything.
    """

    def __init__(self, secrets: Mapping[str, str], patterns: Iterable[str] = (), *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._is_secret_key = _key_test(list(patterns))
        forms = {form for value in secrets.values() for form in _forms(value)} if enabled else set()
        self._forms = sorted(forms, key=len, reverse=True)  # the longer one first: it may contain the shorter
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if forms else None

    def text(self, text: str) -> str:
        return self._pattern.sub(REDACTED, text) if self._pattern else text

    def mapping(self, values: Mapping[str, str]) -> dict[str, str]:
        """Values under a key that looks like a secret's are hidden whole."""
        if not self._enabled:
            return dict(values)
        return {
            self.text(key): REDACTED if self._is_secret_key(key) else self._any(value) if value else value
            for key, value in values.items()
        }

    def job(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """A job as the API shows it, or a part of one."""
        if not self._enabled:
            return dict(job)
        shown = self._members(job)
        if isinstance(context := job.get("context"), dict):
            shown["context"] = {key: self._context(key, value) for key, value in context.items()}
        return shown

    def task(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """A task as the API shows it."""
        return self._members(task) if self._enabled else dict(task)

    def stream(self) -> Stream:
        return Stream(self)

    def cut(self, text: str) -> int:
        """How much of a text that goes on can be redacted now: what follows may become a secret."""
        end = min((_unfinished(text, form) for form in self._forms), default=len(text))
        if self._pattern and end < len(text):
            for match in self._pattern.finditer(text):  # never cut a secret that is complete
                if match.start() < end < match.end():
                    return match.start()
        return end

    def _context(self, key: str, values: dict[str, str]) -> dict[str, str]:
        return _hidden(values) if key == "secrets" else self.mapping(values)

    def _members(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._member(key, value) for key, value in values.items()}

    def _member(self, key: str, value: Any) -> Any:
        if key in _OURS:
            return value
        if isinstance(value, dict):
            if key == "secrets":
                return _hidden(value)
            if key in _MAPS:
                return self.mapping(value)
            if key == "files":
                return {self.text(name): self._any(content) for name, content in value.items()}
            if key == "registry":
                return {**self._members(value), "password": REDACTED}
        return self._any(value)

    def _any(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self._any(element) for element in value]
        return self._members(value) if isinstance(value, dict) else value


class Stream:
    """A text that comes in pieces, and a secret may begin in one and end in another. One thread at a time."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown by now; the end is held back while it may be the beginning of a secret."""
        text = self._held + piece
        end = self._redactor.cut(text)
        self._held = text[end:]
        return self._redactor.text(text[:end])

    def close(self) -> str:
        """The rest."""
        text, self._held = self._held, ""
        return self._redactor.text(text)


def _hidden(values: Mapping[str, str]) -> dict[str, str]:
    return dict.fromkeys(values, REDACTED)


def _forms(value: str) -> Iterator[str]:
    """The ways a value is written: plain, without its line end, line by line, inside JSON, inside a URL."""
    lines = (line.strip() for line in value.split("\n"))
    for plain in (value, value.strip(), *(line for line in lines if len(line) >= MIN_LINE)):
        if not plain:
            continue
        yield plain
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        for encoded in (quote(plain, safe=""), quote(plain), quote_plus(plain)):
            yield encoded
            yield re.sub("%..", lambda match: match[0].lower(), encoded)


def _key_test(patterns: list[str]) -> Any:
    if not patterns:
        return _SECRET_KEY.search
    return re.compile("|".join(re.escape(pattern).replace(r"\*", ".*") for pattern in patterns)).fullmatch


def _unfinished(text: str, form: str) -> int:
    """Where the longest end of the text begins that the form begins with; the end of the text if there is none."""
    borders, matched = _borders(form), 0
    for character in text[max(0, len(text) - len(form) + 1) :]:
        while matched and form[matched] != character:
            matched = borders[matched - 1]
        matched += form[matched] == character
    return len(text) - matched


def _borders(form: str) -> list[int]:
    """For each beginning of the form: how long an end of it the form begins with (Knuth, Morris, Pratt).

    With it the time to look for a form grows with its length, not with the square of it.
    """
    borders, matched = [0] * len(form), 0
    for index in range(1, len(form)):
        while matched and form[matched] != form[index]:
            matched = borders[matched - 1]
        matched += form[matched] == form[index]
        borders[index] = matched
    return borders
