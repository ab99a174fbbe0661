"""Whom the client believes to be the server, and the certificate that it shows itself."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from ragward import AsyncClient, Client, Identity, Unavailable
from tests.script import ANSWER
from tests.world import Asking

BEARER = Identity.bearer("secret")


class Authority:
    """Issues certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.key = folder, name, generate_private_key(SECP256R1())
        self.certificate = self._certificate(name, self.key, is_authority=True)
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[str, str]:
        """Returns the files of a certificate and its key."""
        key = generate_private_key(SECP256R1())
        files = self.folder / f"{self.name}-{name}.crt", self.folder / f"{self.name}-{name}.key"
        certificate = self._certificate(name, key, is_authority=False)
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files[1].write_bytes(key.private_bytes(*form))
        return str(files[0]), str(files[1])

    def _certificate(self, name: str, key: EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        now = datetime.now(timezone.utc)
        own = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=is_authority,
                    crl_sign=is_authority,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        return builder.sign(self.key, hashes.SHA256())


@contextmanager
def serving(server: tuple[str, str], clients: Path | None = None) -> Generator[tuple[str, list[str]], None, None]:
    """Serves one answer over TLS, and notes the tokens that came. With `clients`, it asks for certificates."""
    tokens: list[str] = []
    body = json.dumps(ANSWER).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            tokens.append(self.headers["authorization"])
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class.
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of handshakes that clients gave up."""

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(*server)
    context.verify_mode = ssl.CERT_REQUIRED if clients else ssl.CERT_NONE
    listening = Quiet(("127.0.0.1", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.server_address[1]}", tokens
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


@pytest.fixture(params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def outcome(kind: Any, url: str, **options: Any) -> str:
    asking = Asking(kind(url, identity=BEARER, retries=0, **options))
    try:
        answer = await asking.call("retrieve", "notes", "leave")
        return f"{len(answer)} chunk"
    except Unavailable as error:
        return str(error)
    finally:
        await asking.close()


async def test_a_token_goes_only_to_a_server_with_a_trusted_certificate(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = Authority(tmp_path, "own"), Authority(tmp_path, "other")
    with serving(own.issue("server")) as (url, tokens):
        assert "certificate verify failed" in await outcome(kind, url)
        assert "certificate verify failed" in await outcome(kind, url, ca_file=str(other.file))
        assert tokens == []
        assert await outcome(kind, url, ca_file=str(own.file)) == "1 chunk"
        monkeypatch.setenv("RAGWARD_CA_FILE", str(own.file))
        assert await outcome(kind, url) == "1 chunk"
        assert tokens == ["Bearer secret"] * 2


async def test_a_client_shows_its_certificate(kind: Any, tmp_path: Path) -> None:
    own, other = Authority(tmp_path, "own"), Authority(tmp_path, "other")
    with serving(own.issue("server"), clients=own.file) as (url, tokens):
        trust = {"ca_file": str(own.file)}
        assert await outcome(kind, url, client_certificate=own.issue("client"), **trust) == "1 chunk"
        for certificate in (None, other.issue("client")):
            assert "broke" in await outcome(kind, url, client_certificate=certificate, **trust)
        assert len(tokens) == 1
    with pytest.raises(ValueError, match="https:"):
        kind("http://127.0.0.1:8980", client_certificate=own.issue("client"))
