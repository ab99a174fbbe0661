"""Cuts an upload of any length into requests, without any input or output.

The server takes an upload in one request, too. But a client that still sends may meet a broken connection, and then it never
reads why a document was refused. The server reads on for a mebibyte after a refusal, so no request is longer than that. Also,
a long upload outlives the token that it began with, and each request has a token of its own.
"""

from __future__ import annotations

import time

from ragward._calls import document_line
from ragward._core import Deadline
from ragward.answers import Embedded, Upserted
from ragward.errors import InvalidAnswer
from ragward.requests import Document

#: The most bytes of one request, unless a single document has more.
REQUEST_BYTES_MAX = 1024 * 1024
#: The seconds after which a request takes no further document. It is half of the shortest common life of a token.
REQUEST_SECONDS_MAX = 30.0
#: The most warnings that are kept. One request has as many.
WARNINGS_MAX = 16


class Upload:
    """The state of one upload, over all of its requests."""

    __slots__ = ("_bytes", "_deadline", "_has_ended", "_held", "_is_whole", "_since", "_sum", "failure")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._bytes = 0
        self._since = 0.0
        #: The line that begins the next request.
        self._held: bytes | None = None
        #: Whether all lines of this request were taken.
        self._is_whole = False
        #: Whether there are no further documents.
        self._has_ended = False
        self._sum: Upserted | None = None
        #: The error with which the caller's documents ended.
        self.failure: Exception | None = None

    def begin(self) -> bytes:
        """Begin a request, and return its first line; empty if it has none yet."""
        line, self._held = self._held or b"", None
        self._bytes, self._since, self._is_whole = len(line), time.monotonic(), False
        return line

    def line(self, document: Document) -> bytes | None:
        """Return the line of the next document, or `None` if it begins the next request."""
        self._deadline.remaining_or_raise()
        line = document_line(document)
        is_full = self._bytes + len(line) > REQUEST_BYTES_MAX or time.monotonic() - self._since > REQUEST_SECONDS_MAX
        if self._bytes and is_full:
            self._held, self._is_whole = line, True
            return None
        self._bytes += len(line)
        return line

    def end(self) -> None:
        """Say that there are no further documents."""
        self._is_whole = self._has_ended = True

    def answered(self, answer: Upserted) -> Upserted | None:
        """Take the answer to a request. Returns that of the whole upload once it is the last one."""
        if not self._is_whole:
            raise InvalidAnswer("the server answered before it had read all documents")
        before = self._sum
        if before is not None:
            warnings = dict.fromkeys((*before.warnings, *answer.warnings))
            answer = Upserted(
                documents=before.documents + answer.documents,
                chunks=before.chunks + answer.chunks,
                warnings=tuple(warnings)[:WARNINGS_MAX],
                consistency_token=answer.consistency_token,
                embedded=_sum_of(before.embedded, answer.embedded),
            )
        self._sum = answer
        return answer if self._has_ended else None


def _sum_of(before: Embedded | None, answer: Embedded | None) -> Embedded | None:
    if before is None or answer is None:
        return answer or before
    return Embedded(answer.model, answer.host, before.chunks + answer.chunks)
