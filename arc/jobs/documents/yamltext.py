"""YAML text -> a tree of YamlObject, YamlList and Scalar, which keeps source texts and line numbers.

Built from PyYAML's events without recursion: anchors and aliases share one object, merges copy entries. Nothing is
resolved to a type and no tag makes an object.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, NoReturn

import yaml

from arc.errors import Invalid
from arc.jobs.documents.values import MAX_DEPTH, Scalar, YamlList, YamlObject, too_deep

MAX_COST = 4_000_000  # characters of all texts with aliases written out; a value counts VALUE_COST besides
VALUE_COST = 32
MAX_NAME = 64  # characters of a name that are repeated in an error
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # the first is 10 times as fast
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_TAG}{name}" for name in ("int", "float", "bool", "null")}
_KNOWN_TAGS = _PLAIN_TAGS | {None, "!"} | {f"{_TAG}{name}" for name in ("str", "map", "seq")}


def load(text: str) -> Any:
    """The first document of a text. Raises Invalid with line and column, also when there is none."""
    try:
        with closing(yaml.parse(text, Loader=_LOADER)) as events:
            tree = _Builder()
            for event in events:
                if isinstance(event, yaml.DocumentEndEvent):
                    return tree.root
                tree.add(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Invalid(f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise Invalid(f"not YAML: {str(error).splitlines()[0]}") from None
    raise Invalid("the body is empty")


class _Open:
    """A list or mapping whose end has not come yet."""

    def __init__(self, value: YamlObject | YamlList, event: yaml.CollectionStartEvent, cost: int) -> None:
        self.value = value
        self.anchor = event.anchor
        self.line = _line(event)
        self.cost = cost  # of all that came before it
        self.key: Scalar | None = None
        self.key_line = 0
        self.merged: list[YamlObject] = []


class _Builder:
    def __init__(self) -> None:
        self.root: Any = None
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._cost = 0

    def add(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        _refuse_unknown_tag(event)
        before = self._cost
        self._charge(VALUE_COST + len(event.value), event)
        is_plain = event.tag in _PLAIN_TAGS or (event.tag is None and event.implicit[0])
        self._complete(Scalar(event.value, is_plain), event.anchor, before, _line(event))

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            _refuse(_line(event), f"no anchor {_shown(event.anchor)} has ended before this alias")
        value, cost = self._anchors[event.anchor]
        self._charge(cost, event)
        self._place(value, _line(event))

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        _refuse_unknown_tag(event)
        if len(self._open) > MAX_DEPTH:
            raise too_deep()  # now: the time that reading takes grows with the square of the depth
        value = YamlObject() if isinstance(event, yaml.MappingStartEvent) else YamlList()
        self._open.append(_Open(value, event, self._cost))
        self._charge(VALUE_COST, event)

    def _end(self) -> None:
        ended = self._open.pop()
        for source in ended.merged:
            _merge(ended.value, source)
        self._complete(ended.value, ended.anchor, ended.cost, ended.line)

    def _complete(self, value: Any, anchor: str | None, cost_before: int, line: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, self._cost - cost_before)
        self._place(value, line)

    def _place(self, value: Any, line: int) -> None:
        if not self._open:
            self.root = value
        elif isinstance(self._open[-1].value, YamlList):
            self._open[-1].value.append(value)
            self._open[-1].value.lines.append(line)
        else:
            _place_in_object(self._open[-1], value, line)

    def _charge(self, cost: int, event: yaml.Event) -> None:
        """Aliases of aliases grow without bound; what they stand for is counted, not built."""
        self._cost += cost
        if self._cost > MAX_COST:
            _refuse(_line(event), "the document is too large with its aliases written out")


def _place_in_object(place: _Open, value: Any, line: int) -> None:
    if place.key is None:
        if not isinstance(value, Scalar):
            _refuse(line, "a key must be a text; a value that begins with {{ needs quotes")
        place.key, place.key_line = value, line
        return
    key, place.key = place.key, None
    if key == Scalar("<<", is_plain=True):
        place.merged += _merge_sources(value, line)
    else:
        _set(place.value, key.text, value, place.key_line)


def _set(target: Any, key: str, value: Any, line: int) -> None:
    if key in target:
        _refuse(line, f"key {_shown(key)} is already in line {target.lines[key]}")
    target[key] = value
    target.lines[key] = line


def _merge_sources(value: Any, line: int) -> list[YamlObject]:
    sources = value if isinstance(value, YamlList) else [value]
    if not all(isinstance(source, YamlObject) for source in sources):
        _refuse(line, "<< takes a mapping or a list of mappings")
    return list(sources)


def _merge(target: Any, source: YamlObject) -> None:
    """Keys that are there already win."""
    for key, value in source.items():
        if key not in target:
            target[key] = value
            target.lines[key] = source.lines[key]


def _refuse_unknown_tag(event: Any) -> None:
    if event.tag not in _KNOWN_TAGS:
        _refuse(_line(event), f"unknown tag {_shown(event.tag)}")


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1


def _shown(name: str) -> str:
    return repr(name[:MAX_NAME])


def _refuse(line: int, problem: str) -> NoReturn:
    raise Invalid(f"line {line}: {problem}")
