"""Who asks: in which order that is settled, and that no token is ever shown."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, cast

import httpx
import pytest
from hpack import Encoder

from ragward import (
    AsyncClient,
    Client,
    Identity,
    IdentityMissing,
    NotAuthenticated,
    RagwardError,
    acting_as,
    acting_identity,
)
from tests.script import ANSWER, URL, Script, json_answer, refusal

SECRET = "secret-token"


def identities() -> list[tuple[str, Identity]]:
    async def asynchronous() -> str:
        return SECRET

    return [
        ("a token", Identity.bearer(SECRET)),
        ("a function", Identity.bearer(lambda: SECRET)),
        ("an asynchronous function", Identity.bearer(asynchronous)),
        ("on behalf of somebody", Identity.bearer(SECRET).on_behalf_of("user:anne")),
    ]


@pytest.mark.parametrize(("row", "identity"), identities(), ids=[row for row, _ in identities()])
def test_a_token_is_never_shown(row: str, identity: Identity) -> None:
    @dataclasses.dataclass
    class Holder:
        identity: Identity

    shown = [repr(identity), str(identity), f"{identity}", repr([identity]), repr(Holder(identity))]
    with Client(URL, identity=identity) as client:
        shown += [repr(client), repr(AsyncClient(URL, identity=identity))]
    assert all(SECRET not in text for text in shown), row
    assert not hasattr(identity, "__dict__")
    for held in (identity, {"identity": identity}):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(held)
    # Frameworks copy what they are configured with.
    assert copy.copy(identity) is identity
    assert copy.deepcopy({"identity": identity})["identity"] is identity
    assert dataclasses.asdict(Holder(identity))["identity"] is identity


def test_a_token_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    steps: list[Any] = [refusal(401, "unauthenticated"), httpx.ConnectError("no"), httpx.Response(200, text="no")]
    for step in steps:
        with Client(URL, transport=Script(step).transport, retries=0) as client, pytest.raises(RagwardError) as raised:
            client.retrieve("notes", "leave", identity=Identity.bearer(SECRET))
        told = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(vars(raised.value))
        assert SECRET not in told
        # Collectors of errors show the variables of each function.
        with_variables = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
        assert SECRET not in "".join(with_variables.format())
    assert SECRET not in caplog.text


def test_http2_logs_no_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Client(URL, http2=True):
        Encoder().encode([("authorization", f"Bearer {SECRET}")])
    assert SECRET not in caplog.text


def test_an_identity_says_what_it_is() -> None:
    rows = [
        (Identity.user("user:anne"), "Identity.user('user:anne')"),
        (Identity.none(), "Identity.none()"),
        (Identity.bearer(SECRET), "Identity.bearer(...)"),
        (Identity.bearer(SECRET).on_behalf_of("user:bob"), "Identity.bearer(...).on_behalf_of('user:bob')"),
    ]
    for identity, shown in rows:
        assert repr(identity) == shown


def test_nobody_is_no_user_and_no_token() -> None:
    bearer = Identity.bearer(SECRET)
    rows: list[tuple[str, Callable[[], object]]] = [
        ("an empty user", lambda: Identity.user("")),
        ("no user", lambda: Identity.user(cast("str", None))),
        ("on behalf of an empty user", lambda: bearer.on_behalf_of("")),
        ("on behalf of nobody", lambda: bearer.on_behalf_of(cast("str", None))),
        ("a believed user on behalf of another", lambda: Identity.user("user:anne").on_behalf_of("user:bob")),
        ("an empty token", lambda: Identity.bearer("")),
        ("no token", lambda: Identity.bearer(cast("str", None))),
        ("a token with a line end", lambda: Identity.bearer("a\r\nx-user: anne")),
        ("a token with a space", lambda: Identity.bearer("Bearer a")),
        ("a token that is not ASCII", lambda: Identity.bearer("é")),
        ("a name in place of an identity", lambda: acting_as(cast("Identity", "user:anne")).__enter__()),
        ("nobody acts", lambda: acting_as(cast("Identity", None)).__enter__()),
    ]
    for row, make in rows:
        with pytest.raises((ValueError, TypeError, IdentityMissing)) as refused:
            make()
        assert "x-user" not in str(refused.value), row
    assert acting_identity() is None


@pytest.mark.parametrize("given", ["", None, 7, "a b"])
def test_a_function_has_to_give_a_token(given: Any) -> None:
    script = Script(json_answer(ANSWER))
    with Client(URL, transport=script.transport) as client, pytest.raises((ValueError, TypeError, IdentityMissing)):
        client.retrieve("notes", "leave", identity=Identity.bearer(lambda: cast("str", given)))
    assert script.requests == []


def test_an_error_of_the_function_is_the_callers_own() -> None:
    def fails() -> str:
        raise LookupError("no session")

    script = Script(json_answer(ANSWER))
    with Client(URL, transport=script.transport) as client, pytest.raises(LookupError):
        client.retrieve("notes", "leave", identity=Identity.bearer(fails))
    assert script.requests == []


async def test_an_asynchronous_function_is_for_the_asynchronous_client() -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return "t"

    script = Script(json_answer(ANSWER))
    async with AsyncClient(URL, transport=script.transport) as client:
        await client.retrieve("notes", "leave", identity=Identity.bearer(token))
    assert script.requests[0].headers["authorization"] == "Bearer t"

    def waits() -> Awaitable[str]:
        return asyncio.get_running_loop().create_future()

    for source in (token, waits):
        unused = Script(json_answer(ANSWER))
        with Client(URL, transport=unused.transport) as blocking, pytest.raises(TypeError, match="AsyncClient"):
            blocking.retrieve("notes", "leave", identity=Identity.bearer(source))
        assert unused.requests == []


def test_the_call_comes_first_then_the_block_then_the_client() -> None:
    script = Script(json_answer(ANSWER))
    outer, inner, own, of_client = (Identity.user(f"user:{name}") for name in ("outer", "inner", "own", "client"))
    with Client(URL, transport=script.transport, identity=of_client) as client:
        client.retrieve("notes", "leave")
        with acting_as(outer):
            client.retrieve("notes", "leave")
            with acting_as(inner):
                client.retrieve("notes", "leave")
                client.retrieve("notes", "leave", identity=own)
            client.retrieve("notes", "leave")
        client.retrieve("notes", "leave")
    users = [body["user"].removeprefix("user:") for body in script.bodies]
    assert users == ["client", "outer", "inner", "own", "outer", "client"]


def test_an_error_in_a_block_ends_it() -> None:
    with pytest.raises(NotAuthenticated), acting_as(Identity.user("user:anne")):
        raise NotAuthenticated("no")
    assert acting_identity() is None


def test_a_thread_has_no_identity_unless_it_gets_the_context() -> None:
    script = Script(json_answer(ANSWER))
    with Client(URL, transport=script.transport) as client, ThreadPoolExecutor(1) as threads:

        def ask() -> object:
            return client.retrieve("notes", "leave")

        with acting_as(Identity.user("user:anne")):
            with pytest.raises(IdentityMissing):
                threads.submit(ask).result()
            threads.submit(copy_context().run, ask).result()
    assert [body["user"] for body in script.bodies] == ["user:anne"]


async def test_tasks_inherit_the_block_in_which_they_start() -> None:
    script = Script(json_answer(ANSWER))
    async with AsyncClient(URL, transport=script.transport) as client:
        with acting_as(Identity.user("user:anne")):
            task = asyncio.create_task(client.retrieve("notes", "leave"))
        with acting_as(Identity.user("user:bob")):
            await task
    assert [body["user"] for body in script.bodies] == ["user:anne"]
