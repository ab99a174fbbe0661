"""The fields of adapters whose classes are pydantic's."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ConfigDict, Field

_T = TypeVar("_T")

#: An unknown argument is an error: a misspelt `filter` would search everything. The error does not repeat its value, which
#: may be a token in the place of an identity.
STRICT_CONFIG = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)


def hidden_field(default: _T) -> _T:
    """Return a field that is neither printed nor serialized, because it holds secrets or connections."""
    field: _T = Field(default=default, exclude=True, repr=False)
    return field
