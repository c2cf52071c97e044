"""The functions of the language by family. Only what stands in TABLE can be called by an expression."""

from __future__ import annotations

from arc.jobs.expressions.builtins import encodings, instants, lists, numbers, texts
from arc.jobs.expressions.builtins.signature import Function

TABLE: dict[str, Function] = {
    function.name: function for family in (texts, numbers, lists, encodings, instants) for function in family.FUNCTIONS
}
