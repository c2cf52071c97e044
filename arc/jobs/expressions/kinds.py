"""Types that are known before an expression runs, with the names that error texts use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """name: as shown in errors. element: of lists and maps. fields: the only names that an object has."""

    name: str
    kind: str
    element: Type | None = None
    fields: frozenset[str] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def member(self) -> Type:
        return self.element or ANY


ANY = Type("unknown", "any")
NIL = Type("unknown", "nil")
STRING = Type("string", "string")
INT = Type("int", "int")
FLOAT = Type("float64", "float")
BOOL = Type("bool", "bool")
TIME = Type("time.Time", "time")
DURATION = Type("time.Duration", "duration")
ZONE = Type("*time.Location", "zone")
STRING_MAP = Type("map[string]string", "map", STRING)
MAP = Type("map[string]interface {}", "map")
ARRAY = Type("[]interface {}", "array")
INTS = Type("[]int", "array", INT)
STRINGS = Type("[]string", "array", STRING)

NUMBERS = frozenset({"int", "float"})


def array_of(element: Type) -> Type:
    """Lists whose elements have one known type."""
    return ARRAY if element.kind == "nil" else Type(ARRAY.name, "array", element)


def object_type(name: str, fields: frozenset[str]) -> Type:
    return Type(name, "object", fields=fields)


def is_a(known: Type, *kinds: str) -> bool:
    """Whether a value of this type is, or may turn out to be, one of the kinds."""
    return known.kind == "any" or known.kind in kinds


def comparable(left: Type, right: Type) -> bool:
    """Whether == between the two makes sense; what is not known yet is compared when it is."""
    kinds = {left.kind, right.kind}
    return len(kinds) == 1 or bool(kinds & {"any", "nil"}) or kinds <= NUMBERS
