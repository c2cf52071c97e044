"""What the values of a document may be, and the base of every object in it.

JSON brings Python values and matches keys without case. YAML brings Scalars in YamlObjects: only the field knows
whether `1.10` is a text or a number, so the source text is kept until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_serializer, model_validator

from arc.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import SerializerFunctionWrapHandler

MAX_DEPTH = 100  # levels of lists and objects; some 25 composite tasks inside of each other
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of a YAML document as it stands there. is_plain: without quotes, so it need not be a text."""

    text: str
    is_plain: bool

    @property
    def is_null(self) -> bool:
        return self.is_plain and self.text in _NULLS


class YamlObject(dict[str, Any]):
    """A mapping of a YAML document; lines: where each key stands, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


class YamlList(list[Any]):
    """A list of a YAML document; lines: where each element stands, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


def too_deep() -> Invalid:
    return Invalid(f"lists and objects are nested more than {MAX_DEPTH} levels deep")


def is_null(value: object) -> bool:
    return value is None or (isinstance(value, Scalar) and value.is_null)


def _text(value: object) -> object:
    """Null in a list or map is an empty text. What no database column can hold is refused."""
    if is_null(value):
        return ""
    text = value.text if isinstance(value, Scalar) else value
    if isinstance(text, str):
        _refuse_unstorable(text)
    return text


def _refuse_unstorable(text: str) -> None:
    if "\0" in text:
        raise ValueError("must not contain U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain half of a surrogate pair") from None


def _whole(value: object) -> object:
    """`3`, `0x1F` and `3.0` of YAML; quoted it stays a Scalar, which is no number."""
    if not (isinstance(value, Scalar) and value.is_plain and value.text.isascii()):
        return value
    try:
        return int(value.text, 0)
    except ValueError:
        number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _number(value: object) -> object:
    if not (isinstance(value, Scalar) and value.is_plain and value.text.isascii()):
        return value
    try:
        return float(value.text)
    except ValueError:
        return value


def _truth(value: object) -> object:
    return _TRUTHS.get(value.text.lower(), value) if isinstance(value, Scalar) and value.is_plain else value


@cache
def _names(part: type[BaseModel]) -> dict[str, str]:
    """Keys as documents write them, by the same without case."""
    names = (field.alias or name for name, field in part.model_fields.items())
    return {name.casefold(): name for name in names}


Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[list[Text], Field(default_factory=list)]
TextMap = Annotated[dict[Text, Text], Field(default_factory=dict, repr=False)]  # may hold secrets
Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Truth = Annotated[bool, BeforeValidator(_truth)]


class Part(BaseModel):
    """An object of a document. Null is absent; nothing is converted; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if is_null(value):
            return {}
        if not isinstance(value, dict):
            return value
        names = _names(cls)
        # The keys of YAML are the names themselves, those of JSON in any case.
        keep_case = isinstance(value, YamlObject)
        found = ((key if keep_case else names.get(key.casefold(), key), item) for key, item in value.items())
        return {key: item for key, item in found if not (is_null(item) and key in names.values())}

    @model_serializer(mode="wrap")
    def _omit_empty(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value}

    def to_dict(self) -> dict[str, Any]:
        """As submitted, without what is empty; entries of maps stay, also empty ones."""
        return self.model_dump(by_alias=True)

    def conflicts(self) -> Iterable[tuple[str, str]]:
        """Rules that span several fields and do not hold: name of the field, tag of the rule."""
        return ()
