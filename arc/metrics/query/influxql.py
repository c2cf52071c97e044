"""The little of InfluxQL that clients of InfluxDB 1.x say besides writing; spec metrics 2.6.3.

parse("CREATE DATABASE x; SHOW DATABASES") -> [Statement, Statement]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from arc.errors import Invalid


class Kind(Enum):
    CREATE_DATABASE = auto()
    SHOW_DATABASES = auto()
    SHOW_MEASUREMENTS = auto()
    SHOW_RETENTION_POLICIES = auto()
    SHOW_TAG_KEYS = auto()
    SHOW_FIELD_KEYS = auto()
    NOTHING = auto()  # accepted and without effect: users and retention policies are not kept this way


@dataclass(frozen=True, slots=True)
class Statement:
    """database: to create, or after ON; "" when not named. measurements: after FROM; empty means all."""

    kind: Kind
    database: str = ""
    measurements: tuple[str, ...] = ()


class _Token(NamedTuple):
    text: str
    is_word: bool = False  # neither quoted nor punctuation


_FORMS = {
    ("CREATE", "DATABASE"): Kind.CREATE_DATABASE,
    ("CREATE", "RETENTION", "POLICY"): Kind.NOTHING,
    ("CREATE", "USER"): Kind.NOTHING,
    ("DROP", "RETENTION", "POLICY"): Kind.NOTHING,
    ("SHOW", "DATABASES"): Kind.SHOW_DATABASES,
    ("SHOW", "MEASUREMENTS"): Kind.SHOW_MEASUREMENTS,
    ("SHOW", "RETENTION", "POLICIES"): Kind.SHOW_RETENTION_POLICIES,
    ("SHOW", "TAG", "KEYS"): Kind.SHOW_TAG_KEYS,
    ("SHOW", "FIELD", "KEYS"): Kind.SHOW_FIELD_KEYS,
}
_WITH_KEYS = (Kind.SHOW_TAG_KEYS, Kind.SHOW_FIELD_KEYS)
_TOKEN = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|('(?:[^'\\]|\\.)*')|([\w-]+)|(\S))""", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_END = _Token("")


def parse(text: str) -> list[Statement]:
    """The statements of a request, at least one. Raises Invalid for any that is not known."""
    statements: list[list[_Token]] = [[]]
    for name, string, word, sign in _TOKEN.findall(text):
        if sign == ";":
            statements.append([])
        else:
            statements[-1].append(_Token(word, True) if word else _Token(_ESCAPED.sub(r"\1", name) or string or sign))
    found = [_Reader(tokens).statement() for tokens in statements if tokens]
    if not found:
        raise Invalid('missing required parameter "q"')
    return found


class _Reader:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def statement(self) -> Statement:
        kind = self._kind()
        if kind is Kind.NOTHING:
            return Statement(kind)
        if kind is Kind.CREATE_DATABASE:
            database = self._name()
            if not self._takes("WITH"):  # what follows are options of a retention policy
                self._finish()
            return Statement(kind, database)
        database = self._name() if self._takes("ON") else ""
        measurements = self._measurements() if kind in _WITH_KEYS and self._takes("FROM") else ()
        self._finish()
        return Statement(kind, database, measurements)

    def _kind(self) -> Kind:
        said = tuple(token.text.upper() if token.is_word else "" for token in self._tokens[:3])
        for words, kind in _FORMS.items():
            if said[: len(words)] == words:
                self._next = len(words)
                return kind
        shown = " ".join(said[:1] if said[0] == "SELECT" else [token.text for token in self._tokens[:3]])
        raise Invalid(f"InfluxQL {shown[:80]} is not supported; use SQL")

    def _measurements(self) -> tuple[str, ...]:
        """Names after FROM; `policy.name` means the same as the name."""
        found = [self._name()]
        while self._peek().text in (",", ".") and not self._peek().is_word:
            sign, name = self._take().text, self._name()
            if sign == ".":
                found.pop()
            found.append(name)
        return tuple(found)

    def _name(self) -> str:
        if not self._peek().text:
            raise Invalid("InfluxQL: a name is missing at the end")
        return self._take().text

    def _takes(self, keyword: str) -> bool:
        token = self._peek()
        if not (token.is_word and token.text.upper() == keyword):
            return False
        self._take()
        return True

    def _finish(self) -> None:
        if self._next < len(self._tokens):
            raise Invalid(f"InfluxQL: unexpected {self._peek().text[:40]}")

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else _END

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token
