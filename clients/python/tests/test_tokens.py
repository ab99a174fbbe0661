"""A real server that asks for tokens: who the bearer is, and what the refusals say."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

from ragward import (
    Document,
    Forbidden,
    Identity,
    InvalidRequest,
    LocalServer,
    NewChunk,
    NotAuthenticated,
    local,
)
from ragward._local import _program
from tests.world import NOTES, Asking, fill

AUDIENCE = "https://ragward.example/api"


class Issuer:
    """Signs tokens, and serves its metadata and its key."""

    def __init__(self) -> None:
        self.key = generate_private_key(SECP256R1())
        key = {**json.loads(ECAlgorithm.to_jwk(self.key.public_key())), "kid": "key", "use": "sig"}
        answers: dict[str, Any] = {"/keys": {"keys": [key]}}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(self.path)
                body = json.dumps(answer).encode()
                self.send_response(404 if answer is None else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class.
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        answers["/.well-known/oauth-authorization-server"] = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
        }
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def token(self, subject: str, *scopes: str, **claims: Any) -> str:
        now = int(time.time())
        of_all = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject,
            "client_id": "assistant",
            "jti": f"{subject}-{now}",
            "iat": now - 10,
            "exp": now + 600,
            "scope": " ".join(f"ragward:{scope}" for scope in scopes),
        }
        return jwt.encode({**of_all, **claims}, self.key, "ES256", {"typ": "at+jwt", "kid": "key"})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="module")
def guarded(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder: Path = tmp_path_factory.mktemp("guarded")
    with local(folder / "data") as believing:
        fill(believing)
    config = folder / "ragward.toml"
    config.write_text(
        f"""
[identity]
audience = "{AUDIENCE}"

[[identity.issuers]]
issuer = "{issuer.url}"

[identity.issuers.people]
clients_alone = true
clients = ["assistant"]

[[identity.step_up]]
collection = "secrets"
acr_values = ["mfa"]
max_age = "5m"
"""
    )
    command = [
        _program(None),
        "serve",
        "--config",
        str(config),
        "--data",
        str(folder / "data"),
        "--listen",
        "127.0.0.1:0",
    ]
    with LocalServer(command, {**os.environ, "RUST_LOG": "info"}, 30) as server:
        yield server


@pytest.fixture(params=["threads", "asyncio"])
async def asking(guarded: LocalServer, request: pytest.FixtureRequest) -> Any:
    asking = Asking(guarded.client() if request.param == "threads" else guarded.async_client())
    yield asking
    await asking.close()


async def seen(asking: Asking, identity: Identity) -> set[str]:
    return {chunk.document_id for chunk in await asking.call("retrieve", NOTES, "leave", k=100, identity=identity)}


async def test_the_bearer_is_the_user_of_the_token(asking: Asking, issuer: Issuer) -> None:
    rows = [
        ("anne", Identity.bearer(issuer.token("anne", "retrieve")), {"roadmap", "manual"}),
        ("bob", Identity.bearer(lambda: issuer.token("bob", "retrieve")), {"salaries", "manual"}),
        ("nobody", Identity.bearer(issuer.token("nina", "retrieve")), set[str]()),
        (
            "the same user named",
            Identity.bearer(issuer.token("anne", "retrieve")).on_behalf_of("user:anne"),
            {"roadmap", "manual"},
        ),
        (
            "a service for anne",
            Identity.bearer(issuer.token("service", "retrieve", "assert_user")).on_behalf_of("user:anne"),
            {"roadmap", "manual"},
        ),
    ]
    for row, identity, expected in rows:
        assert await seen(asking, identity) == expected, row


async def test_pages_go_on_when_the_token_was_renewed(asking: Asking, issuer: Issuer) -> None:
    renewals = iter(range(100))
    renewed = Identity.bearer(lambda: issuer.token("anne", "retrieve", jti=f"anne-{next(renewals)}"))
    pages = await asking.each("pages", NOTES, "leave", k=1, identity=renewed)
    assert {chunk.document_id for page in pages for chunk in page} == {"roadmap", "manual"}
    assert next(renewals) == len(pages)
    # The pages of one user are not another's.
    users = iter(["anne", "bob", "bob"])
    mixed = Identity.bearer(lambda: issuer.token(next(users), "retrieve"))
    with pytest.raises(InvalidRequest):
        await asking.each("pages", NOTES, "leave", k=1, identity=mixed)


async def test_a_name_does_not_replace_a_token(asking: Asking, issuer: Issuer) -> None:
    for row, identity in [("a believed user", Identity.user("user:anne")), ("nobody", Identity.none())]:
        with pytest.raises(NotAuthenticated) as refused:
            await seen(asking, identity)
        assert refused.value.challenge is not None, row
        assert refused.value.challenge.startswith("Bearer"), row
    with pytest.raises(Forbidden):
        await seen(asking, Identity.bearer(issuer.token("bob", "retrieve")).on_behalf_of("user:anne"))


async def test_a_token_that_is_not_valid_is_refused(asking: Asking, issuer: Issuer) -> None:
    now = int(time.time())
    rows = [
        ("expired", issuer.token("anne", "retrieve", iat=now - 7200, exp=now - 3600)),
        ("for another server", issuer.token("anne", "retrieve", aud="https://other.example")),
        ("no token at all", "anne"),
    ]
    for row, token in rows:
        with pytest.raises(NotAuthenticated) as refused:
            await seen(asking, Identity.bearer(token))
        assert refused.value.challenge_parameters["error"] == "invalid_token", row


async def test_a_refusal_names_the_scope_or_the_login_that_is_needed(asking: Asking, issuer: Issuer) -> None:
    ingest = Identity.bearer(issuer.token("anne", "ingest"))
    with pytest.raises(Forbidden) as scope:
        await seen(asking, ingest)
    assert scope.value.reason == "INSUFFICIENT_SCOPE"
    assert scope.value.challenge_parameters["scope"] == "ragward:retrieve"
    with pytest.raises(NotAuthenticated) as weak:
        await asking.call("retrieve", "secrets", "leave", identity=Identity.bearer(issuer.token("anne", "retrieve")))
    assert weak.value.reason == "INSUFFICIENT_USER_AUTHENTICATION"
    parameters = weak.value.challenge_parameters
    assert (parameters["acr_values"], parameters["max_age"]) == ("mfa", "300")


async def test_the_bearer_writes_with_its_own_rights(asking: Asking, issuer: Issuer) -> None:
    owner = Identity.bearer(issuer.token("u1", "ingest", "retrieve"))
    name = f"own-{type(asking.client).__name__}"
    own = Document(name, [NewChunk(f"{name}#0", "document:private-u1", "more of mine")])
    assert (await asking.call("upsert_documents", NOTES, [own], identity=owner)).documents == 1
    assert name in await seen_by(asking, owner)
    foreign = Document("foreign", [NewChunk("foreign#0", "document:private-u2", "mine")])
    with pytest.raises(Forbidden):
        await asking.call("upsert_documents", NOTES, [foreign], identity=owner)
    deleted = await asking.call("delete_documents", NOTES, [name, "private-u2"], identity=owner)
    assert deleted.documents == 1


async def seen_by(asking: Asking, identity: Identity) -> set[str]:
    return {chunk.document_id for chunk in await asking.call("retrieve", NOTES, "more mine", k=100, identity=identity)}
