"""What stands for an argument that a call was not given, so that `None` can stand for an identity that was lost."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ragward.errors import IdentityMissing


class NotGiven(Enum):
    """The type of `NOT_GIVEN`. An enum of one member, because type checkers can tell it from everything else."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return self.name


NOT_GIVEN: Final = NotGiven.NOT_GIVEN


def refuse_lost(argument: str, value: object) -> None:
    """Raise `IdentityMissing` if an argument that says who asks was given as `None`.

    A program that has lost its user's session passes that. Taken as not given, it would let the program ask as somebody else.
    """
    if value is None:
        raise IdentityMissing(f"`{argument}` of the call is `None`; leave it out, or say who asks")
