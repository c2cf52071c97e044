"""Arguments are checked against a part of JSON Schema, which is also what clients are shown to make forms of.

Understood: type, enum, const, minimum, maximum, minLength, maxLength, pattern, items, minItems, maxItems,
properties, required, additionalProperties (true, false or a schema), default, description, x-secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from arc.actions.errors import InvalidArgs

if TYPE_CHECKING:
    from collections.abc import Callable

Schema = Mapping[str, Any]
MASK = "********"

_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "null": ("null", lambda value: value is None),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "integer": ("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "number": ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    "string": ("a text", lambda value: isinstance(value, str)),
    "array": ("an array", lambda value: isinstance(value, list)),
    "object": ("an object", lambda value: isinstance(value, dict)),
}

_COUNT: Schema = {"type": "integer", "minimum": 0}
_KEYWORDS: dict[str, Schema] = {  # what may stand behind each
    "type": {"type": ["string", "array"]},
    "enum": {"type": "array"},
    "const": {},
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "pattern": {"type": "string"},
    "items": {"type": "object"},
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "properties": {"type": "object"},
    "required": {"type": "array"},
    "additionalProperties": {"type": ["boolean", "object"]},
    "default": {},
    "description": {"type": "string"},
    "x-secret": {"type": "boolean"},
}


def options(*required: str, **properties: Schema) -> dict[str, Any]:
    """The schema of an object whose members are all named here; null will do when none is required."""
    schema: dict[str, Any] = {"additionalProperties": False, "properties": properties}
    return schema | ({"type": "object", "required": list(required)} if required else {"type": ["object", "null"]})


def check_schema(schema: Any) -> None:
    """Raises ValueError or TypeError for what check() would not understand; for schemas that others write."""
    if not isinstance(schema, dict):
        raise ValueError("a schema must be a table")
    if unknown := set(schema) - set(_KEYWORDS):
        raise ValueError(f"a schema may have {', '.join(sorted(_KEYWORDS))}, not {', '.join(sorted(unknown))}")
    for name, value in schema.items():
        if not _fits(_KEYWORDS[name], value):
            raise ValueError(f"{name} in a schema must be {expectation(_KEYWORDS[name])}")
    if not all(isinstance(name, str) for name in schema.get("required", ())):
        raise ValueError("required in a schema must be names")
    json.dumps(schema, allow_nan=False)  # TOML has dates, and numbers that are none
    if unknown := set(_types(schema)) - set(_TYPES):
        raise ValueError(f"unknown type {', '.join(sorted(unknown))}")
    re.compile(schema.get("pattern", ""))
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for each in inner:
        if not isinstance(each, bool | None):
            check_schema(each)


def check(schema: Schema, value: Any, path: str = "args") -> None:
    """Raises InvalidArgs that names the first member that does not fit."""
    if not _fits(schema, value):
        raise InvalidArgs(path, expectation(schema))
    if isinstance(value, dict):
        _check_members(schema, value, path)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            check(schema["items"], item, f"{path}.{index}")


def with_defaults(schema: Schema | None, value: Any) -> Any:
    """The value, with members that were left out at their defaults; null stands for an object of defaults only."""
    if schema is None or "properties" not in schema or not isinstance(value, dict | None):
        return value
    filled = {name: member["default"] for name, member in schema["properties"].items() if "default" in member}
    return filled | (value or {})


def masked(schema: Schema | None, value: Any) -> Any:
    """A copy of the value that can be shown: what is `x-secret` is hidden."""
    if schema is None or value is None:
        return value
    if schema.get("x-secret"):
        return MASK
    if isinstance(value, dict):
        members, others = schema.get("properties", {}), schema.get("additionalProperties")
        others = others if isinstance(others, Mapping) else None
        return {name: masked(members.get(name, others), member) for name, member in value.items()}
    if isinstance(value, list):
        return [masked(schema.get("items"), item) for item in value]
    return value


def expectation(schema: Schema) -> str:
    """In words, for people: `an integer from 0 to 1000`."""
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return f"one of {', '.join(map(json.dumps, schema['enum']))}"
    words = " or ".join(_TYPES[name][0] for name in _types(schema)) or "anything"
    words += _range(schema, "minimum", "maximum", "") + _range(schema, "minLength", "maxLength", " characters")
    words += f" of the form {schema['pattern']}" if "pattern" in schema else ""
    return words + (f" of at most {schema['maxItems']}" if "maxItems" in schema else "")


def _check_members(schema: Schema, value: dict[str, Any], path: str) -> None:
    members = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            raise InvalidArgs(f"{path}.{name}", f"{expectation(members.get(name, {}))}, which is required")
    for name, member in value.items():
        if name in members:
            check(members[name], member, f"{path}.{name}")
        elif others is False:
            raise InvalidArgs(f"{path}.{name[:60]}", f"none of this name; known are {', '.join(members) or 'none'}")
        elif others is not True:
            check(others, member, f"{path}.{name[:60]}")


def _fits(schema: Schema, value: Any) -> bool:
    types = _types(schema)
    if types and not any(_TYPES[name][1](value) for name in types):
        return False
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        return False
    if "const" in schema and not _same(value, schema["const"]):
        return False
    if isinstance(value, str):
        return _within(len(value), schema, "minLength", "maxLength") and (
            "pattern" not in schema or _matches(schema["pattern"], value)
        )
    if isinstance(value, list):
        return _within(len(value), schema, "minItems", "maxItems")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _within(value, schema, "minimum", "maximum")
    return True


def _matches(pattern: str, text: str) -> bool:
    """As in JSON Schema, where `$` is not content with the end of the last but one line."""
    is_whole = pattern.startswith("^") and pattern.endswith("$")
    return (re.fullmatch if is_whole else re.search)(pattern, text) is not None


def _same(one: Any, other: Any) -> bool:
    """JSON tells true from 1, Python does not."""
    return type(one) is type(other) and one == other


def _types(schema: Schema) -> list[str]:
    named = schema.get("type", [])
    return [named] if isinstance(named, str) else list(named)


def _within(amount: float, schema: Schema, least: str, most: str) -> bool:
    return bool(schema.get(least, amount) <= amount <= schema.get(most, amount))


def _range(schema: Schema, least: str, most: str, unit: str) -> str:
    if least in schema and most in schema:
        return f" from {schema[least]} to {schema[most]}{unit}"
    if least in schema:
        return f" of at least {schema[least]}{unit}"
    return f" of at most {schema[most]}{unit}" if most in schema else ""
