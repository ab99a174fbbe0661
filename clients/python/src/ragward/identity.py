"""Who asks. The server decides what that means; this module only carries it, and never shows a token."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn, TypeAlias, final

from ragward._given import NotGiven, refuse_lost
from ragward.errors import IdentityMissing

#: A token, or a function that returns one. The function is called for each request, so it can renew a token that expires.
TokenSource: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]


@final
class Identity:
    """Who asks: the bearer of a token, a user that the server believes, or both.

    Make one with `Identity.bearer`, `Identity.user` or `Identity.none`. It is immutable, so threads and tasks can share it.
    """

    __slots__ = ("_token", "_user")

    def __init__(self, token: TokenSource | None, user: str) -> None:
        self._token = token
        self._user = user

    @staticmethod
    def bearer(token: TokenSource) -> Identity:
        """Return the identity of whoever has this access token.

        `token` may be a function without arguments that returns the token. It is called for each request, also for each page
        and each retry. `AsyncClient` takes coroutine functions, too.
        """
        if not callable(token):
            _checked_token(token)
        return Identity(token, "")

    @staticmethod
    def user(user: str) -> Identity:
        """Return the identity of an OpenFGA user, such as `user:anne`.

        Only a server that was started with `--insecure-identity` believes it.
        """
        return Identity(None, _checked_user(user))

    @staticmethod
    def none() -> Identity:
        """Say that the server knows otherwise who calls. The request names nobody and has no token."""
        return Identity(None, "")

    def on_behalf_of(self, user: str) -> Identity:
        """Return the identity of a service with a token that asks for another user.

        The server allows that only to tokens with the scope `ragward:assert_user`.
        """
        if self._token is None:
            raise ValueError("only the bearer of a token asks on behalf of somebody; begin with `Identity.bearer`")
        return Identity(self._token, _checked_user(user))

    @property
    def has_token(self) -> bool:
        """Whether requests of this identity carry a token."""
        return self._token is not None

    @property
    def is_asserted(self) -> bool:
        """Whether the bearer of a token asks for another user than the token's own."""
        return self._token is not None and self._user != ""

    def __repr__(self) -> str:
        if self._token is None:
            return f"Identity.user({self._user!r})" if self._user else "Identity.none()"
        asserted = f".on_behalf_of({self._user!r})" if self._user else ""
        return f"Identity.bearer(...){asserted}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Identity cannot be pickled, because it may hold a token")

    # It is immutable. A copy by value would need to take the token apart.
    def __copy__(self) -> Identity:
        return self

    def __deepcopy__(self, memo: object) -> Identity:
        return self


_acting: ContextVar[Identity | None] = ContextVar("ragward_acting_identity", default=None)


@contextmanager
def acting_as(identity: Identity) -> Generator[None, None, None]:
    """Let calls within the block be made as `identity`, where the caller passes none itself.

    It is meant for frameworks that pass no arguments through. Tasks of asyncio that start within the block inherit the
    identity. New threads do not, unless they run in a copy of the context (`contextvars.copy_context`).

    Do not `yield` within the block in a generator: whoever consumes the generator would ask as `identity`, too, and a consumer
    in other threads loses it. Pass `identity=` to the calls there.
    """
    token = _acting.set(_checked_identity(identity))
    try:
        yield
    finally:
        _acting.reset(token)


def acting_identity() -> Identity | None:
    """Return the identity of the innermost `acting_as` block, or `None` outside of any."""
    return _acting.get()


def who_asks(of_call: Identity | NotGiven, of_client: Identity | None) -> Identity:
    """Return the identity of a call: its own, that of `acting_as`, or that of the client.

    Raises `IdentityMissing` if there is none of these, or if that of the call is `None`.
    """
    refuse_lost("identity", of_call)
    if not isinstance(of_call, NotGiven):
        return _checked_identity(of_call)
    for identity in (_acting.get(), of_client):
        if identity is not None:
            return _checked_identity(identity)
    raise IdentityMissing(
        "nobody said who asks: pass `identity=` to the call or to the client, or use `acting_as`; `Identity.none()` says that "
        "the server knows the caller otherwise"
    )


def user_of(identity: Identity) -> str:
    """Return the OpenFGA user that requests of this identity name; empty if they name none."""
    return identity._user


def authorization(identity: Identity) -> str | None:
    """Return the header `authorization` of one request, or `None` if it has none."""
    source = identity._token
    if source is None:
        return None
    token: object = source
    if callable(source):
        token = source()
        if inspect.isawaitable(token):
            if inspect.iscoroutine(token):
                token.close()
            raise TypeError("the function that gives the token is asynchronous; use it with `AsyncClient`")
    return f"Bearer {_checked_token(token)}"


async def authorization_async(identity: Identity) -> str | None:
    """Like `authorization`, and also calls asynchronous functions that give a token."""
    source = identity._token
    if source is None:
        return None
    token: object = source
    if callable(source):
        token = source()
        if inspect.isawaitable(token):
            token = await token
    return f"Bearer {_checked_token(token)}"


def _checked_token(token: object) -> str:
    """Return a token that can stand in a header. No complaint shows the token."""
    if not isinstance(token, str):
        raise TypeError("an access token must be a text")
    if not token:
        raise IdentityMissing("the access token is empty")
    if not all("!" <= character <= "~" for character in token):
        raise ValueError("an access token must be ASCII without spaces and line ends")
    return token


def _checked_user(user: object) -> str:
    # For the server, no name means the token's own subject: an empty name would ask as somebody else than the program means.
    if not isinstance(user, str) or not user:
        raise ValueError("name the OpenFGA user, such as `user:anne`; an empty name stands for nobody")
    return user


def _checked_identity(identity: object) -> Identity:
    if not isinstance(identity, Identity):
        raise TypeError("an identity is made with `Identity.bearer`, `Identity.user` or `Identity.none`")
    return identity
