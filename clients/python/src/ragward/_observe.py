"""Shadow mode: asks in the background which documents of an unfiltered answer Ragward would have withheld.

The answer itself is not touched. Shadow mode is a way in for a program that cannot switch at once, so it ends: it needs a date,
after which it raises. The server keeps what it would have withheld in its audit log.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, TypeVar, final

from ragward import Client, Identity, Purpose, RagwardError
from ragward._adapters import ChunkIdOf, parts_of, unique_ids

if TYPE_CHECKING:
    from types import TracebackType

_Document = TypeVar("_Document")

_logger = logging.getLogger("ragward.observe")

#: The most answers that wait until Ragward is asked about them. At 100 ids each, they take some 10 MB.
QUEUE_MAX = 1_000

#: The least time between two warnings, so that nobody forgets shadow mode, and it does not fill the log either.
WARNING_INTERVAL_SECONDS = 3_600.0

#: The time for which `close` asks about the answers that still wait. It is as long as the server's own time to stop.
CLOSE_TIMEOUT_SECONDS = 10.0


class ObservationEnded(RagwardError):
    """Shadow mode is over: its date has passed, or it was closed. Use Ragward's own retriever, or set a later date."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What an observer has seen since it was made."""

    #: The answers that were given unfiltered.
    answers: int = 0
    #: The documents that Ragward was asked about.
    asked: int = 0
    #: The documents that are no chunks, so Ragward cannot be asked about them.
    unknown: int = 0
    #: The answers that Ragward was not asked about, because the queue was full or was not emptied in time.
    dropped: int = 0
    #: The answers about which the question failed.
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Observation:
    identity: Identity
    chunk_ids: list[str]


@final
class Observer:
    """Asks Ragward about answers in the background.

    It has one thread, which starts with the first answer. `close` ends the thread; so do the last reference to the observer and
    the end of the program.
    """

    def __init__(
        self,
        client: Client,
        collection: str,
        *,
        until: date,
        queue_max: int = QUEUE_MAX,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], date] | None = None,
    ) -> None:
        if queue_max < 1:
            raise ValueError("`queue_max` must be at least 1")
        self._until = _checked_day(until)
        self._today = today or _today_in_utc
        self._worker = _Worker(client, collection, until, queue_max, clock)
        # The worker does not know its observer. So an observer that nobody uses any more can go, and its thread with it.
        self._closing = weakref.finalize(self, self._worker.close, CLOSE_TIMEOUT_SECONDS)
        self.check()

    @property
    def counts(self) -> Counts:
        """Return what the observer has seen so far."""
        return self._worker.counts()

    def check(self) -> None:
        """Raise `ObservationEnded` if shadow mode is over."""
        if self._worker.is_closed():
            raise ObservationEnded("shadow mode was closed")
        if self._today() > self._until:
            raise ObservationEnded(
                f"shadow mode ended with {self._until.isoformat()}; use Ragward's own retriever, or set a later `until`"
            )

    def observed(self, identity: Identity, documents: Sequence[_Document], chunk_id: ChunkIdOf[_Document]) -> None:
        """Let Ragward be asked which of these documents `identity` may see.

        `chunk_id` returns the id of the chunk for a document; nothing stands for a document that is no chunk.
        """
        try:
            # Not later in the thread: the program may change its documents meanwhile.
            ids = [chunk_id(document) or None for document in documents]
        # The answer is given even if the program's function fails. The next warning tells of it.
        except Exception as error:
            self._worker.failed(error)
        else:
            self._worker.submit(_Observation(identity, unique_ids(ids)), unknown=sum(one is None for one in ids))

    def close(self, timeout: float = CLOSE_TIMEOUT_SECONDS) -> None:
        """Ask about the answers that still wait, for at most `timeout` seconds, and end the thread."""
        self._closing.detach()
        self._worker.close(timeout)

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _checked_day(until: object) -> date:
    # A `datetime` is a `date`, too, but the two cannot be compared.
    if isinstance(until, datetime) or not isinstance(until, date):
        raise TypeError("`until` must be a `datetime.date`: the last day of shadow mode, in UTC")
    return until


def _today_in_utc() -> date:
    return datetime.now(timezone.utc).date()


class _Worker:
    """The queue, and the thread that empties it."""

    def __init__(
        self, client: Client, collection: str, until: date, queue_max: int, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._collection = collection
        self._until = until
        self._queue_max = queue_max
        self._clock = clock
        # Guards everything below.
        self._changed = threading.Condition()
        self._queue: deque[_Observation] = deque()
        self._thread: threading.Thread | None = None
        self._closes_at: float | None = None
        self._counts = Counts()
        self._told = Counts()
        self._errors: set[str] = set()
        self._warned_at: float | None = None

    def counts(self) -> Counts:
        with self._changed:
            return self._counts

    def is_closed(self) -> bool:
        with self._changed:
            return self._closes_at is not None

    def submit(self, observation: _Observation, unknown: int) -> None:
        with self._changed:
            self._count(answers=1, unknown=unknown)
            if observation.chunk_ids:
                self._enqueue(observation)
            warning = self._due_warning()
        _warn(warning)

    def failed(self, error: Exception) -> None:
        with self._changed:
            self._count(answers=1)
            self._count_failure(error)
            warning = self._due_warning()
        _warn(warning)

    def close(self, timeout: float) -> None:
        with self._changed:
            if self._closes_at is None:
                self._closes_at = time.monotonic() + timeout
            self._changed.notify_all()
            thread = self._thread
        # The thread itself may drop the last reference to an observer, and cannot wait for its own end.
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        with self._changed:
            self._count(dropped=len(self._queue))
            self._queue.clear()
            # Nobody would learn of a loss after the last warning. Everything else can wait for ever.
            is_loss = self._counts.dropped > self._told.dropped or self._counts.failed > self._told.failed
            warning = self._warning() if is_loss else None
        _warn(warning)

    def _enqueue(self, observation: _Observation) -> None:
        if self._closes_at is not None or len(self._queue) >= self._queue_max:
            self._count(dropped=1)
            return
        self._queue.append(observation)
        self._changed.notify()
        # A forked process has the observer, but not its thread.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="ragward-observe", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and self._closes_at is None:
                    self._changed.wait()
                # `close` counts the answers that are left when the time is over.
                is_late = self._closes_at is not None and time.monotonic() >= self._closes_at
                if is_late or not self._queue:
                    return
                observation = self._queue.popleft()
            self._ask(observation)

    def _ask(self, observation: _Observation) -> None:
        try:
            for part in parts_of(observation.chunk_ids):
                self._client.recheck(
                    self._collection,
                    part,
                    purpose=Purpose.OBSERVE,
                    identity=observation.identity,
                    timeout=self._seconds_left(),
                )
        # No error reaches the program, because it must not notice that it is observed. The next warning tells of the error.
        except Exception as error:
            with self._changed:
                self._count_failure(error)
        else:
            with self._changed:
                self._count(asked=len(observation.chunk_ids))

    def _seconds_left(self) -> float | None:
        """Return the time until `close` gives up, or `None` for the time that the client gives each call."""
        with self._changed:
            closes_at = self._closes_at
        if closes_at is None:
            return None
        left = closes_at - time.monotonic()
        if left <= 0:
            raise ObservationEnded("shadow mode was closed")
        return left

    def _count_failure(self, error: Exception) -> None:
        self._count(failed=1)
        # Only the name, because the text of a foreign error could hold anything. Programs have few names of errors.
        self._errors.add(type(error).__name__)

    def _count(self, *, answers: int = 0, asked: int = 0, unknown: int = 0, dropped: int = 0, failed: int = 0) -> None:
        before = self._counts
        self._counts = replace(
            before,
            answers=before.answers + answers,
            asked=before.asked + asked,
            unknown=before.unknown + unknown,
            dropped=before.dropped + dropped,
            failed=before.failed + failed,
        )

    def _due_warning(self) -> str | None:
        now = self._clock()
        if self._warned_at is not None and now - self._warned_at < WARNING_INTERVAL_SECONDS:
            return None
        self._warned_at = now
        return self._warning()

    def _warning(self) -> str:
        now, told = self._counts, self._told
        self._told = now
        errors = f" ({', '.join(sorted(self._errors))})" if self._errors else ""
        self._errors.clear()
        return (
            f"shadow mode: until {self._until.isoformat()}, answers are not filtered by the rights in the collection "
            f"`{self._collection}`. Since the last warning: answers: {now.answers - told.answers}; "
            f"documents that are no chunks: {now.unknown - told.unknown}; "
            "answers dropped, because the queue was full or was closed: "
            f"{now.dropped - told.dropped}; questions failed: {now.failed - told.failed}{errors}"
        )


def _warn(warning: str | None) -> None:
    # Nobody holds the lock here: the program's own handler of the log may take long, or ask the retriever.
    if warning is not None:
        _logger.warning(warning)
