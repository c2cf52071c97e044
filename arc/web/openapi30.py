"""OpenAPI 3.1 to 3.0, as far as flask-openapi3 and pydantic write it.

3.1 takes JSON Schema as it is, 3.0 a dialect from before: "or null" is a flag beside the type, a constant is an
enumeration of one, an exclusive limit is a flag beside the limit, and nothing may stand beside a `$ref`. Client
generators mostly know 3.0 only.
"""

from __future__ import annotations

from typing import Any

VERSION = "3.0.3"
_NULL = {"type": "null"}


def downgrade(document: dict[str, Any]) -> dict[str, Any]:
    """The same document in 3.0; the argument stays as it is."""
    return {**_walk(document), "openapi": VERSION}


def _walk(node: Any) -> Any:
    if isinstance(node, list):
        return [_walk(item) for item in node]
    if not isinstance(node, dict):
        return node
    return _schema({key: _child(key, value) for key, value in node.items()})


def _child(key: str, value: Any) -> Any:
    if key in ("example", "examples", "default"):
        return value  # data, however much it may look like a schema
    if key == "properties":  # its keys are names of fields, not words of the dialect
        return {name: _walk(schema) for name, schema in value.items()}
    return _walk(value)


def _schema(node: dict[str, Any]) -> dict[str, Any]:
    """One schema, its children done; objects that are no schemas have none of these keys and pass unchanged."""
    variants = node.get("anyOf")
    if isinstance(variants, list) and _NULL in variants:
        rest = [variant for variant in variants if variant != _NULL]
        others = {key: value for key, value in node.items() if key != "anyOf"}
        node = {**others, **(rest[0] if len(rest) == 1 else {"anyOf": rest}), "nullable": True}
    if "const" in node:
        node = {**{key: value for key, value in node.items() if key != "const"}, "enum": [node["const"]]}
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(exclusive), (int, float)) and not isinstance(node[exclusive], bool):
            node = {**node, limit: node[exclusive], exclusive: True}
    if "prefixItems" in node:
        node = {**{key: value for key, value in node.items() if key != "prefixItems"}, "items": {}}
    if isinstance(node.get("$ref"), str) and len(node) > 1:
        others = {key: value for key, value in node.items() if key != "$ref"}
        node = {**others, "allOf": [{"$ref": node["$ref"]}]}
    return node
