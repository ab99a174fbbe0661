"""What both clients share and neither sends itself: settings, deadlines, retries, and the meaning of what came back."""

from __future__ import annotations

import json
import logging
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ipaddress import ip_address
from typing import Any, TypeVar, cast

import httpx

from ragward import _wire
from ragward._calls import Call, Effect
from ragward.errors import (
    ApprovalRequired,
    DeadlineExceeded,
    FieldViolation,
    Forbidden,
    InvalidAnswer,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    RagwardError,
    Unavailable,
)
from ragward.identity import Identity

T = TypeVar("T")

#: The address on which `ragward serve` listens by default.
DEFAULT_URL = "http://127.0.0.1:8980"
#: The seconds that a call may take by default, all tries together.
DEFAULT_TIMEOUT = 30.0
#: The tries by default after the first one.
DEFAULT_RETRIES = 2
#: The most tries after the first one. Their waits alone take more than ten seconds.
RETRIES_MAX = 10
#: The largest answer in bytes. It is seven times what a server gives by its default settings, and keeps a broken one from
#: filling the memory.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
#: The most connections of one client. Further calls wait for one to be free, within their deadlines.
CONNECTIONS_MAX = 100
#: The wait before the second try, in seconds. It doubles with each further one.
BACKOFF_SECONDS = 0.1
#: The longest wait before a try, unless the server asks for a longer one.
BACKOFF_SECONDS_MAX = 2.0

#: The content types of requests: one message, and one in each line.
JSON, LINES = "application/json", "application/x-ndjson"

#: The errors that the sending of a request may raise. With asyncio, httpx lets alerts of TLS through as they are.
TRANSPORT_ERRORS = (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError)

_USER_AGENT = f"ragward-python/{version('ragward')}"


class Settings:
    """The settings of a client, checked."""

    __slots__ = ("_may_send_tokens", "ca_file", "client_certificate", "http2", "retries", "timeout", "url")

    def __init__(
        self,
        *,
        url: str | None,
        timeout: float,
        retries: int,
        ca_file: str | None,
        client_certificate: tuple[str, str] | None,
        http2: bool,
        plain_http_tokens: bool,
    ) -> None:
        self.url = _checked_url(url or os.environ.get("RAGWARD_SERVER") or DEFAULT_URL)
        self.timeout = checked_timeout(timeout)
        if retries not in range(RETRIES_MAX + 1):
            raise ValueError(f"`retries` must be a whole number from 0 to {RETRIES_MAX}")
        self.retries = retries
        self.ca_file = ca_file or os.environ.get("RAGWARD_CA_FILE") or None
        self.client_certificate = client_certificate
        if client_certificate is not None and not self.url.startswith("https:"):
            raise ValueError("a client certificate is of use only with an address that begins with `https:`")
        self.http2 = http2
        if http2:
            _keep_tokens_out_of_logs()
        parts = httpx.URL(self.url)
        self._may_send_tokens = parts.scheme == "https" or _is_loopback(parts.host) or plain_http_tokens

    def admitted(self, identity: Identity) -> Identity:
        """Return the identity of a call. Raises `InvalidRequest` if its token would go over the network in plain text."""
        if identity.has_token and not self._may_send_tokens:
            raise InvalidRequest(
                "a token is sent only to an address that begins with `https:`, or to this machine; "
                "`plain_http_tokens` allows others"
            )
        return identity

    def http_options(self) -> dict[str, Any]:
        """Return the arguments for a client of httpx."""
        url = httpx.URL(self.url)
        return {
            "verify": self._trust() if url.scheme == "https" else False,
            # Without TLS nothing is negotiated, so HTTP/2 is spoken from the start or not at all.
            "http2": self.http2,
            "http1": url.scheme == "https" or not self.http2,
            # A proxy of the environment must not see what is meant for this machine.
            "trust_env": not _is_loopback(url.host),
            "limits": httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
            # A token goes to this server alone.
            "follow_redirects": False,
            # A cookie of one user's answer must not come along with the next user's request.
            "cookies": CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        }

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else httpx.create_ssl_context()
        if self.client_certificate is not None:
            certificate, key = self.client_certificate
            context.load_cert_chain(certificate, key)
        return context


def checked_timeout(seconds: float) -> float:
    """Return the timeout if it is one that a call can have."""
    if isinstance(seconds, bool) or not 0 < seconds < float("inf"):
        raise ValueError("`timeout` is a positive number of seconds")
    return float(seconds)


class Deadline:
    """The moment by which a call must be answered, all tries together."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds that are left. The number is negative after the deadline."""
        return self._end - time.monotonic()

    def remaining_or_raise(self) -> float:
        """Return the seconds that are left. Raises `DeadlineExceeded` if there are none."""
        remaining = self.remaining()
        if remaining <= 0:
            raise late()
        return remaining


class Failed(Exception):
    """One try of a call failed. The caller gets `error`, unless a further try succeeds."""

    def __init__(self, error: RagwardError, *, was_sent: bool) -> None:
        super().__init__()
        self.error = error
        #: Whether the server may have seen the request.
        self.was_sent = was_sent


class Tries:
    """The tries of one call. It decides whether there is another one, and when."""

    __slots__ = ("_deadline", "_effect", "_jitter", "_left", "_wait")

    def __init__(
        self, effect: Effect, retries: int, deadline: Deadline, jitter: Callable[[], float] = random.random
    ) -> None:
        self._effect = effect
        self._left = retries
        self._deadline = deadline
        self._jitter = jitter
        self._wait = BACKOFF_SECONDS

    def wait_after(self, failed: Failed) -> float:
        """Return the seconds to wait before the next try. Raises the error of this one if there is no other."""
        if self._left <= 0 or not self._may_repeat(failed):
            raise failed.error from failed.__cause__
        self._left -= 1
        # Half of it is random, so that clients that failed together do not come back together.
        wait = self._wait * (0.5 + 0.5 * self._jitter())
        self._wait = min(self._wait * 2, BACKOFF_SECONDS_MAX)
        if isinstance(failed.error, Unavailable) and failed.error.retry_after is not None:
            wait = max(wait, failed.error.retry_after)
        # The reason of the failure tells more than that time ran out while nothing was tried.
        if self._deadline.remaining() <= wait:
            raise failed.error from failed.__cause__
        return wait

    def _may_repeat(self, failed: Failed) -> bool:
        if not isinstance(failed.error, Unavailable):
            return False
        return self._effect is Effect.READS or (self._effect is Effect.REPLACES and not failed.was_sent)


@dataclass(frozen=True, slots=True)
class Received:
    """What came back over HTTP."""

    status: int
    headers: httpx.Headers
    body: bytes


class BodyReader:
    """Collects the body of an answer, within a limit of size and time."""

    __slots__ = ("_deadline", "_pieces", "_size")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._deadline.remaining_or_raise()
        self._size += len(piece)
        if self._size > ANSWER_BYTES_MAX:
            raise InvalidAnswer(f"the server's answer has more than {ANSWER_BYTES_MAX} bytes")
        self._pieces.append(piece)

    def received(self, response: httpx.Response) -> Received:
        """Return the answer, once all pieces are there."""
        return Received(response.status_code, response.headers, b"".join(self._pieces))


def headers(authorization: str | None, seconds_left: float | None, content_type: str) -> httpx.Headers:
    """Return the headers of a request. Unlike a dict, they print without the token, also where a traceback shows variables."""
    fields = {
        "accept": "application/json",
        # The server does not compress its answers. Something else could make a small one fill the memory.
        "accept-encoding": "identity",
        "content-type": content_type,
        "connect-protocol-version": "1",
        "user-agent": _USER_AGENT,
    }
    if authorization is not None:
        fields["authorization"] = authorization
    if seconds_left is not None:
        # The server gives up when nobody waits any longer.
        fields["connect-timeout-ms"] = str(max(1, int(seconds_left * 1000)))
    return httpx.Headers(fields)


def refuse_encoding(response: httpx.Response) -> None:
    """Raise `InvalidAnswer` if an answer is compressed. None was asked for, and it could grow beyond any limit."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidAnswer("the answer is compressed, and a Ragward server compresses none")


def answer_of(call: Call[T], received: Received) -> T:
    """Return the answer of a call. Raises `Failed` if it was refused."""
    if received.status != HTTPStatus.OK:
        raise Failed(refusal(received), was_sent=True)
    media_type = received.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidAnswer(f"the answer is not from a Ragward server: it has the content type `{media_type[:64]}`")
    return call.read(_wire.parsed(received.body))


def refusal(received: Received) -> RagwardError:
    """Return the error that a refusal stands for."""
    code, message, details = _connect_error(received)
    known = _details(details)
    info = known.get("google.rpc.ErrorInfo", {})
    reason = _text(info.get("reason"))
    challenge = received.headers.get("www-authenticate")
    if code == "unauthenticated":
        return NotAuthenticated(message, code=code, reason=reason, challenge=challenge)
    if code == "permission_denied":
        if reason in _APPROVAL:
            asked = _authorization_details(info)
            return ApprovalRequired(message, code=code, reason=reason, challenge=challenge, authorization_details=asked)
        return Forbidden(message, code=code, reason=reason, challenge=challenge)
    if code == "not_found":
        return NotFound(message, code=code, reason=reason)
    if code == "deadline_exceeded":
        return DeadlineExceeded(message, code=code, reason=reason)
    is_too_large = received.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if code == "unavailable" or (code == "resource_exhausted" and not is_too_large):
        return Unavailable(message, code=code, reason=reason, retry_after=_retry_after(received.headers))
    if is_too_large or code in _INVALID:
        violations = _violations(known.get("google.rpc.BadRequest", {}))
        return InvalidRequest(message, code=code, reason=reason, violations=violations)
    return RagwardError(message, code=code, reason=reason)


def transport_failure(error: httpx.HTTPError | httpx.InvalidURL | ssl.SSLError, url: str) -> Failed:
    """Return the failure that an error of the connection to a server stands for."""
    # The text of such an error names addresses and certificates, never headers.
    told = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return Failed(Unavailable(f"there is no connection to {url}: {told}"), was_sent=False)
    if isinstance(error, httpx.TimeoutException):
        return Failed(late(), was_sent=not isinstance(error, httpx.PoolTimeout))
    if isinstance(error, httpx.InvalidURL):
        return Failed(InvalidRequest(f"the request has no address: {told}"), was_sent=False)
    if isinstance(error, httpx.DecodingError):
        return Failed(InvalidAnswer(f"the server's answer cannot be decoded: {told}"), was_sent=True)
    return Failed(Unavailable(f"the connection to the server broke: {told}"), was_sent=True)


def late() -> DeadlineExceeded:
    """Return the error of a call that took longer than its caller waits."""
    return DeadlineExceeded("there was no answer before the deadline")


_APPROVAL = {"APPROVAL_REQUIRED", "APPROVAL_PENDING"}
_INVALID = {"invalid_argument", "failed_precondition", "out_of_range", "already_exists"}

#: The codes of answers that something between the client and the server gave, by their HTTP status.
_CODES = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    408: "deadline_exceeded",
    413: "resource_exhausted",
    415: "invalid_argument",
    429: "resource_exhausted",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
}


def _connect_error(received: Received) -> tuple[str, str, list[Any]]:
    """Return the code, the message and the details of a refusal."""
    try:
        body: Any = json.loads(received.body)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        error = cast("dict[str, Any]", body)
        code, message, details = error.get("code"), error.get("message"), error.get("details")
        if isinstance(code, str):
            return code, _text(message) or code, cast("list[Any]", details) if isinstance(details, list) else []
    code = _CODES.get(received.status, "unknown")
    return code, f"the server, or something in front of it, refused with the HTTP status {received.status}", []


def _authorization_details(info: Mapping[str, Any]) -> list[Any]:
    """Return the details of the token that a refusal asks for."""
    facts = info.get("metadata")
    text = cast("dict[str, Any]", facts).get("authorization_details") if isinstance(facts, dict) else None
    try:
        asked = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return []
    return cast("list[Any]", asked) if isinstance(asked, list) else []


def _details(details: list[Any]) -> dict[str, Mapping[str, Any]]:
    """Return the details of a refusal by their types, in their readable form."""
    known: dict[str, Mapping[str, Any]] = {}
    for detail in details:
        if isinstance(detail, dict):
            fields = cast("dict[str, Any]", detail)
            kind, shown = fields.get("type"), fields.get("debug")
            if isinstance(kind, str) and isinstance(shown, dict):
                known[kind] = cast("dict[str, Any]", shown)
    return known


def _violations(bad_request: Mapping[str, Any]) -> list[FieldViolation]:
    listed = bad_request.get("fieldViolations")
    violations: list[FieldViolation] = []
    for one in cast("list[Any]", listed) if isinstance(listed, list) else []:
        if isinstance(one, dict):
            fields = cast("dict[str, Any]", one)
            violations.append(FieldViolation(_text(fields.get("field")), _text(fields.get("description"))))
    return violations


def _retry_after(fields: httpx.Headers) -> float | None:
    # The server sends whole seconds. A date, as a proxy may send, is not read.
    value = fields.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _checked_url(url: str) -> str:
    parts = httpx.URL(url)
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise ValueError("the server's address is a URL such as `http://127.0.0.1:8980`")
    if parts.userinfo or parts.query or parts.fragment:
        # httpx would send the name and the password of a URL as the caller's credentials.
        raise ValueError("the server's address must have no user, query or fragment")
    return url.rstrip("/")


def _keep_tokens_out_of_logs() -> None:
    # The library of HTTP/2 logs every header while a program debugs everything. A program that asks for these logs gets them.
    log = logging.getLogger("hpack")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
