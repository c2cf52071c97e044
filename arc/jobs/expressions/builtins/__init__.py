"""The functions of the language by family. Only what stands in TABLE can be called by an expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.jobs.expressions.builtins import encodings, instants, lists, numbers, texts

if TYPE_CHECKING:
    from arc.jobs.expressions.builtins.signature import Function

TABLE: dict[str, Function] = {
    function.name: function for family in (texts, numbers, lists, encodings, instants) for function in family.FUNCTIONS
}
