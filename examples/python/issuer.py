"""An issuer of access tokens for the examples. Its key lives as long as the example. Use your identity provider instead."""

from __future__ import annotations

import json
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

KEY_ID = "example"
#: The lifetime of a token, which is longer than an example takes.
LIFETIME_SECONDS = 300


class Issuer:
    """Signs tokens, and serves its metadata (RFC 8414) and its keys (RFC 7517) on this machine."""

    def __init__(self, audience: str) -> None:
        self._audience = audience
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = {
            **ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True),
            "kid": KEY_ID,
            "use": "sig",
            "alg": "ES256",
        }
        issuer = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pages: dict[str, Any] = {
                    "/.well-known/oauth-authorization-server": {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"},
                    "/keys": {"keys": [public]},
                }
                page = pages.get(self.path)
                self.send_response(404 if page is None else 200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(page).encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the output of the example to what it is about."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self._thread = Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """The value of `iss` in its tokens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def token(self, subject: str, **claims: Any) -> str:
        """Return an access token (RFC 9068) of a person, with more claims such as `act`."""
        now = int(time.time())
        all_claims = {
            "iss": self.url,
            "aud": self._audience,
            "sub": subject,
            "client_id": "desk",
            "scope": "ragward:retrieve",
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            # The time of the login marks a person's token. A machine has none.
            "auth_time": now,
            **claims,
        }
        return jwt.encode(all_claims, self._key, algorithm="ES256", headers={"typ": "at+jwt", "kid": KEY_ID})

    def __enter__(self) -> Issuer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
