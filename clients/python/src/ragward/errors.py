"""The errors of the client: what a program can do about them decides their types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# RFC 6750 writes the parameters of a challenge as `name="value"`.
_CHALLENGE_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that is wrong."""

    #: The path of the field in the request, spelled as in `proto/`: `vector.values`.
    field: str
    #: The problem with its value. The text continues a sentence that begins with the name of the field.
    description: str


class RagwardError(Exception):
    """A call was not answered. Its subclasses say what a program can do about that."""

    def __init__(self, message: str, *, code: str = "", reason: str = "") -> None:
        super().__init__(message)
        #: The text for people. It never holds a token.
        self.message = message
        #: The gRPC code, spelled as Connect does: `invalid_argument`. It is empty if no server refused.
        self.code = code
        #: A stable word of the server for programs, such as `INSUFFICIENT_SCOPE`. It may be empty.
        self.reason = reason


class IdentityMissing(RagwardError):
    """Nobody said who asks, so nothing was sent."""


class _Challenged(RagwardError):
    def __init__(self, message: str, *, code: str = "", reason: str = "", challenge: str | None = None) -> None:
        super().__init__(message, code=code, reason=reason)
        #: The header `WWW-Authenticate`: what the server asks for (RFC 6750, RFC 9470).
        self.challenge = challenge

    @property
    def challenge_parameters(self) -> dict[str, str]:
        """Returns the parameters of the challenge, such as `error`, `scope`, `acr_values` and `max_age`."""
        return dict(_CHALLENGE_PARAMETER.findall(self.challenge or ""))


class NotAuthenticated(_Challenged):
    """The token is missing or not valid, or the login behind it is too weak.

    For a login that is too weak, `challenge_parameters` has `acr_values` or `max_age`.
    """


class Forbidden(_Challenged):
    """The token does not allow the call."""


class ApprovalRequired(Forbidden):
    """The call is allowed once a person has approved it.

    Ask them with `request_approval`, and make the same call with its `approval`. Or ask the issuer for a token with
    `authorization_details`, and make the same call with it. The reason `APPROVAL_PENDING` means that the person was asked
    and has not answered yet: make the same call again later.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        challenge: str | None = None,
        authorization_details: list[Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, reason=reason, challenge=challenge)
        #: The details to ask the issuer for, exactly as they are (RFC 9396). They are empty if the server names none.
        self.authorization_details = authorization_details or []


class InvalidRequest(RagwardError):
    """The request is wrong, or does not fit this server. To send it again is of no use."""

    def __init__(
        self, message: str, *, code: str = "", reason: str = "", violations: list[FieldViolation] | None = None
    ) -> None:
        super().__init__(message, code=code, reason=reason)
        #: The wrong fields, as far as the server names them.
        self.violations = violations or []


class NotFound(RagwardError):
    """There is no such collection, chunk or path. What is forbidden is never told so: it is left out."""


class Unavailable(RagwardError):
    """The server is out of reach or overloaded, or one of its backends did not answer. A later try may succeed."""

    def __init__(self, message: str, *, code: str = "", reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, code=code, reason=reason)
        #: The seconds to wait before the next try, if the server says so.
        self.retry_after = retry_after


class DeadlineExceeded(RagwardError):
    """There was no answer in time."""


class InvalidAnswer(RagwardError):
    """What came back is not the answer of a Ragward server, so nothing of it is used."""
