"""SQL as text, only as far as needed: to tell statements apart, to find those of our own, to give messages.

What a statement means is never judged by its text; that is the parse tree's part (parsetree.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from arc.errors import Invalid
from arc.metrics import names
from arc.metrics.storage.lake import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEXEME = re.compile(
    r"""(?P<skip>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<quoted>"(?:[^"]|"")*"|`[^`]*`)
      | (?P<literal>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|(?P<tag>\$\w*\$).*?(?P=tag))
      | (?P<word>\w+)
      | (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_NEEDS_QUOTES = re.compile(r"(?i)`|\bdefault\s*\.")
_EXPLAIN = re.compile(r"(?i)explain(?: analyze| \( format (?:text|json) \))?")


@dataclass(frozen=True)
class Listing:
    """A question the store answers itself: its databases, or the measurements of one."""

    kind: str  # "databases" or "measurements"
    database: str = ""


class Lexeme(NamedTuple):
    kind: str
    text: str
    start: int


def lexemes_of(sql: str) -> Iterator[Lexeme]:
    """The lexemes of a text without blanks and comments."""
    for found in LEXEME.finditer(sql):
        if found["skip"] is None:
            yield Lexeme(str(found.lastgroup), found.group(), found.start())


def is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can express but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def statements_of(sql: str) -> list[list[Lexeme]]:
    """The statements of a text that are not empty."""
    parts: list[list[Lexeme]] = [[]]
    for lexeme in lexemes_of(sql):
        if lexeme.text == ";":
            parts.append([])
        else:
            parts[-1].append(lexeme)
    return [part for part in parts if part]


def without_end(sql: str) -> str:
    """One statement without the semicolons, blanks and comments behind it, fit to stand within another."""
    lexemes = list(lexemes_of(sql))
    while lexemes[-1].text == ";":
        lexemes.pop()
    return sql[: lexemes[-1].start + len(lexemes[-1].text)]


def with_double_quotes(sql: str) -> str:
    """Names in back quotes, which DuckDB does not know, and the database `default`, a keyword, in double quotes."""
    if not _NEEDS_QUOTES.search(sql):
        return sql
    pieces = list(sql)
    lexemes = list(lexemes_of(sql))
    for (kind, text, start), (_, following, _) in zip(lexemes, [*lexemes[1:], Lexeme("other", "", 0)], strict=True):
        last = start + len(text) - 1
        if kind == "quoted" and text[0] == "`" and '"' not in text:
            pieces[start] = pieces[last] = '"'
        elif kind == "word" and text.lower() == "default" and following == ".":
            pieces[start], pieces[last] = f'"{pieces[start]}', f'{pieces[last]}"'
    return "".join(pieces)


def explained(sql: str) -> tuple[str, str]:
    """The EXPLAIN in front of a statement, and the statement."""
    lexemes = list(lexemes_of(sql))
    for length in (5, 2, 1):  # EXPLAIN (FORMAT json), EXPLAIN ANALYZE, EXPLAIN
        prefix = " ".join(lexeme.text for lexeme in lexemes[:length])
        if length < len(lexemes) and _EXPLAIN.fullmatch(prefix):
            return prefix.upper(), sql[lexemes[length].start :]
    return "", sql


def own_statement(sql: str, database: str) -> Listing | str:
    """The listing a SHOW asks for, else the text for DuckDB, in its own words where ours differ."""
    statements = statements_of(sql)
    if len(statements) != 1:
        return sql
    first, *rest = statements[0]
    words = [lexeme.text.lower() for lexeme in rest]
    if first.text.lower() == "show":
        if words == ["databases"]:
            return Listing("databases")
        if words in (["tables"], ["measurements"]):
            return Listing("measurements", database)
        if words[:1] in (["tables"], ["measurements"]) and words[1:2] in (["from"], ["in"]):
            return _measurements_of(_dotted_name(rest[2:]))
        if words[:1] == ["columns"] and words[1:2] in (["from"], ["in"]):
            rest = rest[2:]
    name = _dotted_name(rest)
    return sql if name is None else "DESCRIBE " + ".".join(quoted(part) for part in name)


def _measurements_of(name: list[str] | None) -> Listing:
    if name is None or len(name) != 1:
        raise Invalid("Usage: SHOW TABLES [FROM database]")
    require_name(names.check_database, name[0])
    return Listing("measurements", name[0])


def _dotted_name(lexemes: list[Lexeme]) -> list[str] | None:
    """The parts of a name such as `db.t`, `my-db.t` or `"my-db"."t"`; None when it is something else."""
    parts, expects_word = [""], True
    for kind, text, _ in lexemes:
        if expects_word and kind == "quoted":
            parts[-1] += text[1:-1].replace('""', '"')
        elif expects_word and kind == "word":
            parts[-1] += text
        elif not expects_word and text == "-":
            parts[-1] += "-"
        elif not expects_word and text == ".":
            parts.append("")
        else:
            return None
        expects_word = not expects_word
    return None if expects_word else parts


def require_name(check: Callable[[str], None], name: str) -> None:
    try:
        check(name)
    except Invalid:
        raise Invalid(
            "Quoted identifier in table position is not a valid database or measurement name "
            f"(replacement scans are disabled): {name}"
        ) from None
