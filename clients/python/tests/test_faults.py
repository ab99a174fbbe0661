"""What the client makes of servers that fail, refuse, or are no servers of Ragward at all."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import inspect
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from ragward import (
    ApprovalRequired,
    AsyncClient,
    Client,
    DeadlineExceeded,
    Document,
    FieldViolation,
    Forbidden,
    Identity,
    IdentityMissing,
    InvalidAnswer,
    InvalidRequest,
    NewChunk,
    NotAuthenticated,
    NotFound,
    RagwardError,
    Unavailable,
    _core,
    acting_as,
)
from tests.script import ANSWER, CHUNK, RECHECKED, URL, Script, Step, json_answer, refusal
from tests.world import Asking

ANNE = Identity.user("user:anne")


@pytest.fixture(params=[Client, AsyncClient])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asking]:
    """Makes each client in turn, over a script in place of the network."""
    monkeypatch.setattr(_core, "BACKOFF_SECONDS", 0.001)

    def make(script: Script, url: str = URL, **options: Any) -> Asking:
        options.setdefault("identity", ANNE)
        return Asking(request.param(url, transport=script.transport, **options))

    return make


Made = Callable[..., Asking]

REFUSALS: list[tuple[str, httpx.Response, type[RagwardError]]] = [
    ("no token", refusal(401, "unauthenticated"), NotAuthenticated),
    ("another scope", refusal(403, "permission_denied"), Forbidden),
    ("an approval", refusal(403, "permission_denied", ErrorInfo={"reason": "APPROVAL_REQUIRED"}), ApprovalRequired),
    ("wrong fields", refusal(400, "invalid_argument"), InvalidRequest),
    ("another set-up", refusal(400, "failed_precondition"), InvalidRequest),
    ("a body that is too large", refusal(413, "resource_exhausted"), InvalidRequest),
    ("no collection", refusal(404, "not_found"), NotFound),
    ("a backend", refusal(503, "unavailable"), Unavailable),
    ("too much to do", refusal(429, "resource_exhausted"), Unavailable),
    ("too late", refusal(504, "deadline_exceeded"), DeadlineExceeded),
    ("a defect", refusal(500, "internal"), RagwardError),
    ("not served", refusal(501, "unimplemented"), RagwardError),
    ("a code of a later version", refusal(400, "something_new"), RagwardError),
    ("a proxy without a server", httpx.Response(502, text="<html>"), Unavailable),
    ("a proxy that waited", httpx.Response(504), DeadlineExceeded),
    ("a proxy that asks for a login", httpx.Response(401, text="<html>"), NotAuthenticated),
    ("a redirect", httpx.Response(302, headers={"location": "http://127.0.0.1:1/"}), RagwardError),
    ("an empty refusal", httpx.Response(500), RagwardError),
    ("a refusal of another kind", json_answer(["no"], 400), InvalidRequest),
    ("success without an answer", httpx.Response(204), RagwardError),
]


@pytest.mark.parametrize(("row", "response", "kind"), REFUSALS, ids=[row for row, _, _ in REFUSALS])
async def test_every_refusal_is_an_error(
    made: Made, row: str, response: httpx.Response, kind: type[RagwardError]
) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("retrieve", ("notes", "leave")),
        ("recheck", ("notes", ["a#0"])),
        ("fetch", ("notes",)),
        ("put_document", ("notes", "a")),
        ("upsert_documents", ("notes", [])),
    ]
    for method, arguments in calls:
        script = Script(response)
        with pytest.raises(RagwardError) as raised:
            await made(script, retries=0).call(method, *arguments)
        assert type(raised.value) is kind, (row, method)
        assert len(script.requests) == 1, (row, method)


APPROVALS: list[tuple[str, Any, list[Any]]] = [
    ("details", {"authorization_details": '[{"type": "a", "nonce": "5"}]'}, [{"type": "a", "nonce": "5"}]),
    ("none", {}, []),
    ("no facts", None, []),
    ("a text that is no JSON", {"authorization_details": "["}, []),
    ("JSON that is no list", {"authorization_details": "{}"}, []),
    ("a number", {"authorization_details": 7}, []),
]


@pytest.mark.parametrize(("row", "facts", "expected"), APPROVALS, ids=[row for row, _, _ in APPROVALS])
async def test_an_approval_says_what_to_ask_for(made: Made, row: str, facts: Any, expected: list[Any]) -> None:
    refused = refusal(403, "permission_denied", ErrorInfo={"reason": "APPROVAL_REQUIRED", "metadata": facts})
    with pytest.raises(ApprovalRequired) as raised:
        await made(Script(refused)).call("retrieve", "hr", "salaries")
    assert raised.value.authorization_details == expected, row


async def test_a_refusal_says_all_that_the_server_said(made: Made) -> None:
    violation = {"field": "top_k", "description": "is 0, must be from 1 to 100"}
    wrong = refusal(
        400, "invalid_argument", ErrorInfo={"reason": "INVALID_ARGUMENT"}, BadRequest={"fieldViolations": [violation]}
    )
    with pytest.raises(InvalidRequest) as invalid:
        await made(Script(wrong)).call("retrieve", "notes", "leave", k=0)
    assert invalid.value.violations == [FieldViolation("top_k", "is 0, must be from 1 to 100")]
    assert (invalid.value.code, invalid.value.reason, str(invalid.value)) == (
        "invalid_argument",
        "INVALID_ARGUMENT",
        "because invalid_argument",
    )

    step_up = 'Bearer error="insufficient_user_authentication", acr_values="mfa phr", max_age="300"'
    login = refusal(
        401,
        "unauthenticated",
        headers={"www-authenticate": step_up},
        ErrorInfo={"reason": "INSUFFICIENT_USER_AUTHENTICATION"},
    )
    with pytest.raises(NotAuthenticated) as weak:
        await made(Script(login)).call("retrieve", "notes", "leave", classification_max="secret")
    assert weak.value.challenge == step_up
    assert weak.value.challenge_parameters == {
        "error": "insufficient_user_authentication",
        "acr_values": "mfa phr",
        "max_age": "300",
    }
    assert weak.value.reason == "INSUFFICIENT_USER_AUTHENTICATION"

    scope = refusal(403, "permission_denied", headers={"www-authenticate": 'Bearer scope="ragward:explain"'})
    with pytest.raises(Forbidden) as forbidden:
        await made(Script(scope)).call("explain", "user:anne", object="document:a")
    assert forbidden.value.challenge_parameters == {"scope": "ragward:explain"}

    busy = refusal(429, "resource_exhausted", headers={"retry-after": "7"})
    with pytest.raises(Unavailable) as late:
        await made(Script(busy), timeout=5).call("retrieve", "notes", "leave")
    assert late.value.retry_after == 7


def without(message: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return a message without one of its fields."""
    head, *rest = path
    if not rest:
        return {name: value for name, value in message.items() if name != head}
    if head == "chunks":
        return {**message, head: [without(chunk, *rest) for chunk in message[head]]}
    return {**message, head: without(message[head], *rest)}


FOREIGN: list[tuple[str, httpx.Response]] = [
    ("nothing", httpx.Response(200, headers={"content-type": "application/json"})),
    ("an empty object", json_answer({})),
    ("a list", json_answer([])),
    ("null", json_answer(None)),
    ("a page of a proxy", httpx.Response(200, html="<html>please log in</html>")),
    ("JSON under another name", httpx.Response(200, text=json.dumps(ANSWER))),
    ("half an answer", httpx.Response(200, text=json.dumps(ANSWER)[:-9], headers={"content-type": "application/json"})),
    ("an error in place of an answer", json_answer({"code": "unavailable", "message": "no"})),
    ("an answer to another question", json_answer(RECHECKED)),
    ("no chunks", json_answer({**ANSWER, "chunks": None})),
    ("a chunk that is none", json_answer({**ANSWER, "chunks": ["a#0"]})),
    ("an unknown end", json_answer({**ANSWER, "completion": "COMPLETION_UNSPECIFIED"})),
    ("an unknown recall", json_answer({**ANSWER, "recall": "RECALL_UNSPECIFIED"})),
    ("a score that is none", json_answer({**ANSWER, "chunks": [{**CHUNK, "score": "NaN"}]})),
    ("a score that is true", json_answer({**ANSWER, "chunks": [{**CHUNK, "score": True}]})),
    ("metadata of an unknown kind", json_answer({**ANSWER, "chunks": [{**CHUNK, "metadata": {"a": {"b": 1}}}]})),
    ("metadata without a value", json_answer({**ANSWER, "chunks": [{**CHUNK, "metadata": {"a": dict[str, Any]()}}]})),
    ("deeper than any answer", httpx.Response(200, text="[" * 100_000, headers={"content-type": "application/json"})),
    *((f"no {name}", json_answer(without(ANSWER, name))) for name in ANSWER),
    *((f"a chunk without {name}", json_answer(without(ANSWER, "chunks", name))) for name in CHUNK),
]


@pytest.mark.parametrize(("row", "response"), FOREIGN, ids=[row for row, _ in FOREIGN])
async def test_what_is_no_answer_is_an_error(made: Made, row: str, response: httpx.Response) -> None:
    for method in ("retrieve", "pages"):
        script = Script(response)
        with pytest.raises(InvalidAnswer):
            await (made(script).each if method == "pages" else made(script).call)(method, "notes", "leave")
        assert len(script.requests) == 1, row


async def test_a_later_server_may_say_more(made: Made) -> None:
    more = {**ANSWER, "chunks": [{**CHUNK, "shelf": 3}], "warmth": "high"}
    answer = await made(Script(json_answer(more))).call("retrieve", "notes", "leave")
    assert [chunk.id for chunk in answer] == ["a#0"]


async def test_an_endless_answer_is_given_up(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "ANSWER_BYTES_MAX", 1_000)
    endless = httpx.Response(200, text="x" * 2_000, headers={"content-type": "application/json"})
    with pytest.raises(InvalidAnswer):
        await made(Script(endless)).call("retrieve", "notes", "leave")


async def test_an_answer_that_could_grow_is_refused(made: Made) -> None:
    def compressed(request: httpx.Request) -> httpx.Response:
        fields = {"content-type": "application/json", "content-encoding": "gzip"}
        return httpx.Response(200, headers=fields, content=gzip.compress(json.dumps(ANSWER).encode()))

    script = Script(compressed)
    with pytest.raises(InvalidAnswer, match="compressed"):
        await made(script).call("retrieve", "notes", "leave")
    assert [request.headers["accept-encoding"] for request in script.requests] == ["identity"]


class NoEnd:
    """Pages of which every one has a further one."""

    def __init__(self, tokens: Iterator[str]) -> None:
        self.tokens = tokens

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return json_answer({**ANSWER, "nextPageToken": next(self.tokens)})


async def test_pages_that_do_not_end_are_given_up(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragward._calls.PAGES_MAX", 5)
    rows = [("the same token", NoEnd(iter(["t"] * 100)), 2), ("ever new tokens", NoEnd(map(str, range(100))), 5)]
    for row, server, requests in rows:
        script = Script(server)
        with pytest.raises(InvalidAnswer):
            await made(script).each("pages", "notes", "leave")
        assert len(script.requests) == requests, row


REFUSED = httpx.ConnectError("connection refused")
BROKEN = httpx.ReadError("connection reset")
BUSY = refusal(503, "unavailable")

REPEATED: list[tuple[str, str, tuple[Any, ...], Step, int]] = [
    ("a search that a backend failed", "retrieve", ("notes", "leave"), BUSY, 3),
    ("a search without a connection", "retrieve", ("notes", "leave"), REFUSED, 3),
    ("a search at a server that is overloaded", "retrieve", ("notes", "leave"), refusal(429, "resource_exhausted"), 3),
    ("a search on a broken connection", "retrieve", ("notes", "leave"), BROKEN, 3),
    ("a recheck", "recheck", ("notes", ["a#0"]), BUSY, 3),
    ("a fetch", "fetch", ("notes",), BUSY, 3),
    ("a search that is late", "retrieve", ("notes", "leave"), httpx.ReadTimeout("late"), 1),
    ("a search that is wrong", "retrieve", ("notes", "leave"), refusal(400, "invalid_argument"), 1),
    ("a search without a token", "retrieve", ("notes", "leave"), refusal(401, "unauthenticated"), 1),
    ("a search that a defect ended", "retrieve", ("notes", "leave"), refusal(500, "internal"), 1),
    ("a document without a connection", "put_document", ("notes", "a"), REFUSED, 3),
    ("a document on a broken connection", "put_document", ("notes", "a"), BROKEN, 1),
    (
        "a document at a server that is overloaded",
        "put_document",
        ("notes", "a"),
        refusal(429, "resource_exhausted"),
        1,
    ),
    ("a document that a backend failed", "put_document", ("notes", "a"), BUSY, 1),
    ("a deletion without a connection", "delete_documents", ("notes", ["a"]), REFUSED, 3),
    ("a deletion that a backend failed", "delete_documents", ("notes", ["a"]), BUSY, 1),
    ("an upload without a connection", "upsert_documents", ("notes", []), REFUSED, 1),
    ("an upload that a backend failed", "upsert_documents", ("notes", []), BUSY, 1),
]


@pytest.mark.parametrize(("row", "method", "arguments", "step", "tries"), REPEATED, ids=[row[0] for row in REPEATED])
async def test_only_what_is_safe_is_sent_again(
    made: Made, row: str, method: str, arguments: tuple[Any, ...], step: Step, tries: int
) -> None:
    script = Script(step)
    with pytest.raises(RagwardError):
        await made(script).call(method, *arguments)
    assert len(script.requests) == tries, row


async def test_a_failure_that_passes_is_not_seen(made: Made) -> None:
    script = Script(BUSY, REFUSED, json_answer(ANSWER))
    answer = await made(script).call("retrieve", "notes", "leave")
    assert len(answer) == 1
    assert len(script.requests) == 3


async def test_a_server_out_of_reach_is_named(made: Made) -> None:
    with pytest.raises(Unavailable, match=r"no connection to http://127\.0\.0\.1:9: connection refused"):
        await made(Script(REFUSED), url="http://127.0.0.1:9").call("retrieve", "notes", "leave")


async def test_all_tries_share_one_deadline(made: Made) -> None:
    # The server asks to wait for longer than the caller does: its reason is told at once.
    script = Script(refusal(503, "unavailable", headers={"retry-after": "100"}))
    with pytest.raises(Unavailable):
        await made(script, timeout=50).call("retrieve", "notes", "leave")
    assert len(script.requests) == 1


async def test_the_server_is_told_how_long_the_caller_waits(made: Made) -> None:
    script = Script(json_answer(ANSWER))
    # The times are long, because a busy machine may take a while until a request is sent.
    asking = made(script, timeout=2_000)
    await asking.call("retrieve", "notes", "leave")
    await asking.call("retrieve", "notes", "leave", timeout=200)
    waits = [int(request.headers["connect-timeout-ms"]) for request in script.requests]
    assert 200_000 < waits[0] <= 2_000_000
    assert 0 < waits[1] <= 200_000


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, True])
async def test_a_timeout_that_is_none_is_refused(made: Made, seconds: float) -> None:
    script = Script(json_answer(ANSWER))
    with pytest.raises(ValueError, match="timeout"):
        await made(script).call("retrieve", "notes", "leave", timeout=seconds)
    with pytest.raises(ValueError, match="timeout"):
        made(script, timeout=seconds)
    assert script.requests == []


@pytest.mark.parametrize("retries", [-1, 11, 0.5])
async def test_a_number_of_retries_that_is_none_is_refused(made: Made, retries: float) -> None:
    with pytest.raises(ValueError, match="`retries` must be a whole number from 0 to 10"):
        made(Script(json_answer(ANSWER)), retries=retries)


@contextlib.asynccontextmanager
async def silent_server() -> AsyncGenerator[str, None]:
    """Takes connections and never answers."""
    ended = asyncio.Event()

    async def keep(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()


async def test_a_server_that_never_answers_is_given_up() -> None:
    async with silent_server() as url:
        async with AsyncClient(url, identity=ANNE, timeout=0.2) as client:
            with pytest.raises(DeadlineExceeded):
                await client.retrieve("notes", "leave")
            with pytest.raises(DeadlineExceeded):
                await client.upsert_documents("notes", [], timeout=0.2)
            with pytest.raises(DeadlineExceeded):
                await client.upsert_documents("notes", [])

        def ask() -> None:
            with Client(url, identity=ANNE, timeout=0.2) as client:
                with pytest.raises(DeadlineExceeded):
                    client.retrieve("notes", "leave")
                with pytest.raises(DeadlineExceeded):
                    client.upsert_documents("notes", [])

        await asyncio.to_thread(ask)


async def test_a_slow_token_is_within_the_deadline() -> None:
    async def token() -> str:
        await asyncio.Event().wait()
        return "never"

    script = Script(json_answer(ANSWER))
    async with AsyncClient(URL, transport=script.transport) as client:
        with pytest.raises(DeadlineExceeded):
            await client.retrieve("notes", "leave", identity=Identity.bearer(token), timeout=0.05)
    assert script.requests == []


def authorizations(script: Script) -> list[str | None]:
    return [request.headers.get("authorization") for request in script.requests]


class Renewed:
    """Gives a new token each time, as one does that renews a token that has expired."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self) -> str:
        self.given += 1
        return f"token-{self.given}"


def expires(request: httpx.Request) -> httpx.Response:
    """Take each token once."""
    body = json.loads(request.content)
    number = {"": 1, "p2": 2, "p3": 3}[body["pageToken"]]
    if request.headers["authorization"] != f"Bearer token-{number}":
        return refusal(401, "unauthenticated")
    return json_answer({**ANSWER, "nextPageToken": {1: "p2", 2: "p3", 3: ""}[number]})


async def test_a_token_that_expires_between_pages_is_renewed(made: Made) -> None:
    script = Script(expires)
    pages = await made(script).each("pages", "notes", "leave", identity=Identity.bearer(Renewed()))
    assert len(pages) == 3
    assert authorizations(script) == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]

    fixed = Script(expires)
    with pytest.raises(NotAuthenticated):
        await made(fixed).each("pages", "notes", "leave", identity=Identity.bearer("token-1"))


async def test_each_try_has_a_token_of_its_own(made: Made) -> None:
    script = Script(BUSY, json_answer(ANSWER))
    await made(script).call("retrieve", "notes", "leave", identity=Identity.bearer(Renewed()))
    assert authorizations(script) == ["Bearer token-1", "Bearer token-2"]


async def test_cookies_of_one_answer_do_not_come_with_the_next_request(made: Made) -> None:
    script = Script(json_answer(ANSWER, headers={"set-cookie": "session=of-anne; Path=/"}))
    asking = made(script)
    for _ in range(2):
        await asking.call("retrieve", "notes", "leave")
    assert [request.headers.get("cookie") for request in script.requests] == [None, None]


async def test_a_token_follows_no_redirect(made: Made) -> None:
    script = Script(httpx.Response(307, headers={"location": "http://127.0.0.1:1/elsewhere"}))
    with pytest.raises(RagwardError):
        await made(script).call("retrieve", "notes", "leave", identity=Identity.bearer("secret"))
    assert [str(request.url) for request in script.requests] == [
        f"{URL}/ragward.retrieval.v1.RetrievalService/Retrieve"
    ]


async def test_a_token_goes_over_the_network_only_with_tls(made: Made) -> None:
    rows: list[tuple[str, str, dict[str, Any], bool]] = [
        ("to this machine", "http://localhost:8980", {}, True),
        ("to this machine over IPv6", "http://[::1]:8980", {}, True),
        ("with TLS", "https://rag.example", {}, True),
        ("in plain text", "http://rag.example", {}, False),
        ("to an address", "http://10.0.0.7:8980", {}, False),
        ("to a name like this machine's", "http://localhost.example", {}, False),
        ("where something else encrypts", "http://rag.example", {"plain_http_tokens": True}, True),
    ]
    for row, url, options, is_sent in rows:
        script = Script(json_answer(ANSWER))
        asking = made(script, url, **options)
        if is_sent:
            await asking.call("retrieve", "notes", "leave", identity=Identity.bearer("secret"))
        else:
            with pytest.raises(InvalidRequest):
                await asking.call("retrieve", "notes", "leave", identity=Identity.bearer("secret"))
        assert len(script.requests) == int(is_sent), row


#: A call of each method that returns an answer, and of each that returns an iterator.
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("retrieve", ("notes", "leave")),
    ("recheck", ("notes", [])),
    ("fetch", ("notes",)),
    ("explain", ("user:anne",)),
    ("request_approval", ("notes", "leave")),
    ("upsert_documents", ("notes", [])),
    ("put_document", ("notes", "a")),
    ("delete_documents", ("notes", [])),
    ("list_collections", ()),
    ("ingest_status", ("notes",)),
]
ITERATORS: list[tuple[str, tuple[Any, ...]]] = [("pages", ("notes", "leave")), ("list_documents", ("notes",))]


async def test_without_an_identity_nothing_is_sent(made: Made) -> None:
    script = Script(json_answer(ANSWER))
    asking = made(script, identity=None)
    for method, arguments in CALLS:
        with pytest.raises(IdentityMissing):
            await asking.call(method, *arguments)
    for method, arguments in ITERATORS:
        with pytest.raises(IdentityMissing):
            getattr(asking.client, method)(*arguments)
    assert script.requests == []


@pytest.mark.parametrize(("method", "arguments"), CALLS + ITERATORS, ids=[name for name, _ in CALLS + ITERATORS])
async def test_a_lost_identity_asks_as_nobody_else(made: Made, method: str, arguments: tuple[Any, ...]) -> None:
    script = Script(json_answer(ANSWER))
    asking = made(script, identity=Identity.user("user:other"))
    # An iterator of pages raises before its first page.
    ask = getattr(asking.client, method) if (method, arguments) in ITERATORS else partial(asking.call, method)

    async def answer() -> None:
        await ask(*arguments, identity=None)

    with acting_as(Identity.user("user:another")), pytest.raises(IdentityMissing, match="`identity` of the call"):
        await answer()
    assert script.requests == []


def test_every_method_is_asked_without_an_identity() -> None:
    methods = {name for name, _ in CALLS + ITERATORS}
    for client in (Client, AsyncClient):
        for name, method in inspect.getmembers(client, inspect.isfunction):
            takes_one = "identity" in inspect.signature(method).parameters and not name.startswith("_")
            assert takes_one == (name in methods), (client, name)


async def test_who_asks_stands_in_the_request(made: Made) -> None:
    rows: list[tuple[str, Identity, str | None, str | None]] = [
        ("a believed user", ANNE, "user:anne", None),
        ("the bearer", Identity.bearer("t"), None, "Bearer t"),
        ("the bearer for somebody", Identity.bearer("t").on_behalf_of("user:bob"), "user:bob", "Bearer t"),
        ("nobody", Identity.none(), None, None),
    ]
    for row, identity, user, header in rows:
        script = Script(json_answer(ANSWER))
        await made(script, identity=Identity.user("user:other")).call("retrieve", "notes", "leave", identity=identity)
        (body,) = script.bodies
        assert (body.get("user"), authorizations(script)) == (user, [header]), row


async def test_documents_are_never_written_on_behalf_of_somebody(made: Made) -> None:
    script = Script(json_answer(ANSWER))
    asking = made(script, identity=Identity.bearer("t").on_behalf_of("user:bob"))
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("upsert_documents", ("notes", [])),
        ("put_document", ("notes", "a")),
        ("delete_documents", ("notes", ["a"])),
    ]
    for method, arguments in calls:
        with pytest.raises(InvalidRequest) as refused:
            await asking.call(method, *arguments)
        assert [violation.field for violation in refused.value.violations] == ["identity"], method
    assert script.requests == []


@pytest.mark.parametrize(
    "url", ["rag.example", "ftp://rag.example", "http://", "https://anne:secret@rag.example", "http://rag.example?a=1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises((ValueError, httpx.InvalidURL)):
        Client(url)


def test_an_address_may_have_a_path_and_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().url == "http://127.0.0.1:8980"
    monkeypatch.setenv("RAGWARD_SERVER", "https://rag.example/ragward/")
    script = Script(json_answer(ANSWER))
    with Client(identity=ANNE, transport=script.transport) as client:
        client.retrieve("notes", "leave")
    assert str(script.requests[0].url) == "https://rag.example/ragward/ragward.retrieval.v1.RetrievalService/Retrieve"


async def test_what_is_no_list_of_ids_and_no_embedding_is_refused(made: Made) -> None:
    script = Script(json_answer(ANSWER))
    asking = made(script)
    rows: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
        ("one id in place of a list", "recheck", ("notes", "a#0"), {}),
        ("one document in place of a list", "fetch", ("notes",), {"document_ids": "a"}),
        ("bytes in place of an embedding", "retrieve", ("notes", b"leave"), {}),
        ("nothing", "retrieve", ("notes", None), {}),
        ("a mapping in place of a filter", "retrieve", ("notes", "leave"), {"filter": {"area": "people"}}),
    ]
    for row, method, arguments, options in rows:
        with pytest.raises(TypeError):
            await asking.call(method, *arguments, **options)
        assert script.requests == [], row


UPSERTED: dict[str, Any] = {"documents": "1", "chunks": "2", "warnings": ["nobody"], "consistencyToken": "t"}


class Counts:
    """Takes documents in, as many as there are lines."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.tokens.append(request.headers["authorization"])
        lines = request.content.count(b"\n")
        token = f"t{len(self.tokens)}"
        return json_answer({**UPSERTED, "documents": str(lines), "chunks": str(lines), "consistencyToken": token})


async def test_a_long_upload_is_cut_into_requests_with_a_token_each(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragward._upload.REQUEST_BYTES_MAX", 1_000)
    documents = [Document(f"d{n}", [NewChunk(f"d{n}#0", "document:a", "x" * size)]) for n, size in enumerate(SIZES)]
    server = Counts()
    script = Script(server)
    upserted = await made(script, identity=Identity.bearer(Renewed())).call("upsert_documents", "notes", documents)
    assert (upserted.documents, upserted.chunks, upserted.warnings) == (len(SIZES), len(SIZES), ("nobody",))
    assert upserted.consistency_token == f"t{len(script.requests)}"
    assert server.tokens == [f"Bearer token-{n + 1}" for n in range(len(script.requests))]
    lines = [line for request in script.requests for line in request.content.splitlines()]
    assert [json.loads(line)["id"] for line in lines] == [document.id for document in documents]
    for request in script.requests:
        assert len(request.content) <= 1_000 or request.content.count(b"\n") == 1
    assert len(script.requests) == 5


#: The sizes of texts: some that share a request, one that needs more than a request may have, and some after it.
SIZES = [300, 300, 300, 300, 2_000, 10, 10, 900]


async def test_a_slow_upload_is_cut_by_time(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every time that has passed is longer, also none.
    monkeypatch.setattr("ragward._upload.REQUEST_SECONDS_MAX", -1.0)
    documents = [Document(f"d{n}", [NewChunk(f"d{n}#0", "document:a", "x")]) for n in range(3)]
    script = Script(Counts())
    upserted = await made(script, identity=Identity.bearer("t")).call("upsert_documents", "notes", documents)
    assert (upserted.documents, len(script.requests)) == (3, 3)


class Hasty(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A server that answers before it has read anything."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return json_answer(UPSERTED)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return json_answer(UPSERTED)


async def test_an_upload_that_nobody_read_is_no_success() -> None:
    documents = [Document("a", [NewChunk("a#0", "document:a", "x")])]
    for client in (Client(URL, identity=ANNE, transport=Hasty()), AsyncClient(URL, identity=ANNE, transport=Hasty())):
        with pytest.raises(InvalidAnswer):
            await Asking(client).call("upsert_documents", "notes", documents)
        await Asking(client).close()
