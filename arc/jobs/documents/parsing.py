"""A request's body -> a checked document.

parse -> JSON or YAML -> tree -> model (names and types) -> rules. The first step that fails answers.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from arc.errors import Invalid
from arc.jobs.documents import yamltext
from arc.jobs.documents.models import Document, JobDocument
from arc.jobs.documents.rules import broken_rules
from arc.jobs.documents.values import MAX_DEPTH, YamlList, YamlObject, too_deep
from arc.jobs.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_VALUES = 50_000
MAX_LINES = 100  # of an error
_MAX_DIGITS = 18
_MAX_NAME = 64  # characters of an unknown name that are repeated in an error
_PROBLEMS = {
    "extra_forbidden": "unknown field",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "string_unicode": "has a name with half of a surrogate pair",
}
_Kind = TypeVar("_Kind", bound=Document)


def parse(body: bytes, content_type: str | None, kind: type[_Kind] = JobDocument) -> _Kind:  # type: ignore[assignment]
    """Read and check a document.

    content_type: application/json, text/yaml or application/x-yaml, in any case and with parameters.
    Raises Invalid: where the text is broken, or all unknown names and wrong types, or all broken rules.
    """
    read = _reader(content_type)
    tree = read(_decoded(body))
    _refuse_size(tree)
    document = _model(kind, tree)
    if isinstance(document, JobDocument) and document.wait is not None:
        parse_duration(document.wait.timeout)
    if broken := _joined(broken_rules(document, kind.title)):
        raise Invalid(broken)
    return document


def _reader(content_type: str | None) -> Callable[[str], Any]:
    if content_type is None:
        raise Invalid("missing content type")
    read = _READERS.get(content_type.partition(";")[0].strip().lower())
    if read is None:
        raise Invalid(f"unknown content type: {content_type}")
    return read


def _decoded(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise Invalid("the body is empty")
    return text


def _json(text: str) -> Any:
    """The first value of a text; what follows it is ignored."""
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        return _JSON.raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        raise Invalid(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise too_deep() from None


def _whole(digits: str) -> int | float:
    """Python refuses to read very long numbers; no field takes one, so they need not be exact."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _refuse_constant(name: str) -> Any:
    raise Invalid(f"{name} is no JSON")


_JSON = json.JSONDecoder(parse_int=_whole, parse_constant=_refuse_constant)
_READERS = {"application/json": _json, "text/yaml": yamltext.load, "application/x-yaml": yamltext.load}


def _refuse_size(tree: Any) -> None:
    """Level by level, so that no depth is too much for it."""
    level, values = [tree], 0
    for _ in range(MAX_DEPTH + 1):
        level = [child for value in level for child in _children(value)]
        values += len(level)
        if values > MAX_VALUES:
            raise Invalid(f"the document has more than {MAX_VALUES} values")
        if not level:
            return
    raise too_deep()


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _model(kind: type[_Kind], tree: Any) -> _Kind:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    places = [(_line_of(tree, problem["loc"]), problem) for problem in problems]
    places.sort(key=lambda place: place[0])
    raise Invalid(_joined(_sentence(line, problem["loc"], _problem(problem)) for line, problem in places))


def _problem(problem: Any) -> str:
    """The sentence for one error of pydantic; a value_error comes from a validator of ours."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return _PROBLEMS.get(problem["type"]) or str(problem["msg"])


def _sentence(line: int, loc: tuple[str | int, ...], problem: str) -> str:
    path = _path(loc)
    start = f"line {line}: " if line else ""
    return f"{start}{path}: {problem}" if path else f"{start}the document {problem}"


def _path(loc: tuple[str | int, ...]) -> str:
    """`tasks[0].env.A`; `[key]` is pydantic's mark for the name itself."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in loc if step != "[key]")
    return "".join(steps).removeprefix(".")


def _shown(name: str) -> str:
    """A name as it was sent, or quoted and cut when it is odd."""
    return name if name.isidentifier() and len(name) <= _MAX_NAME else json.dumps(name[:_MAX_NAME])


def _line_of(tree: Any, loc: tuple[str | int, ...]) -> int:
    """Where a value stands in a YAML text, or the innermost one around it that is known; 0 in JSON."""
    line = 1 if isinstance(tree, YamlObject | YamlList) else 0
    for step in loc:
        try:
            line, tree = tree.lines[step], tree[step]
        except (AttributeError, LookupError, TypeError):
            break
    return line


def _joined(lines: Iterator[str]) -> str:
    shown = list(islice(lines, MAX_LINES + 1))
    return "\n".join(shown if len(shown) <= MAX_LINES else [*shown[:MAX_LINES], "and more"])
