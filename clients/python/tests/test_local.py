"""A server of the program's own: how it starts, and that it always ends."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from ragward import Identity, LocalServer, RagwardError, _local, local

#: The seconds after which a process that has not ended is a fault.
END_SECONDS_MAX = 30

MODEL = """
model: |
  model
    schema 1.1
  type user
  type document
    relations
      define can_read: [user]
tuples:
  - { user: user:anne, relation: can_read, object: document:leave }
"""


def is_gone(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez", trust_env=False)
    except httpx.TransportError:
        return True
    return False


def has_ended(pid: int) -> bool:
    """Waits until a process has ended. It need not be a child of this one."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return select.select([process], [], [], END_SECONDS_MAX)[0] != []
    finally:
        os.close(process)


def test_a_notebook_needs_no_server(tmp_path: Path) -> None:
    model = tmp_path / "store.fga.yaml"
    model.write_text(MODEL)
    data = tmp_path / "data"
    anne = Identity.user("user:anne")
    with local(data, model=model) as server, server.client(identity=anne) as client:
        url = server.url
        assert repr(server) == f"LocalServer('{url}')"
        client.put_document("handbook", "leave", guard="document:leave", text="Parental leave is 18 weeks.")
        client.put_document("handbook", "pay", guard="document:pay", text="Pay during parental leave.")
        assert [chunk.document_id for chunk in client.retrieve("handbook", "parental leave")] == ["leave"]
    assert is_gone(url)
    # The documents are still there. A second close does nothing.
    server.close()
    with local(data) as again, again.client(identity=anne) as client:
        assert [chunk.document_id for chunk in client.retrieve("handbook", "parental leave")] == ["leave"]


def test_a_new_folder_waits_for_its_model(tmp_path: Path) -> None:
    with local(tmp_path / "data") as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/readyz").json() == {"status": "not ready", "reasons": ["authorizer"]}


def test_the_environment_does_not_change_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGWARD_CONFIG", str(tmp_path / "absent.toml"))
    monkeypatch.setenv("RAGWARD__SERVER__LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("RUST_LOG", "off")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with local(tmp_path / "data") as server, server.client(identity=Identity.none()) as client:
        assert client.list_collections() == ()


def test_two_servers_have_ports_and_folders_of_their_own(tmp_path: Path) -> None:
    with local(tmp_path / "a") as first, local(tmp_path / "b") as second:
        assert first.url != second.url
        with pytest.raises(RagwardError, match="ended before it was ready"):
            local(tmp_path / "a")


def test_what_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "ragward.toml"
    config.write_text("[server]\nno_such_setting = true\n")
    with pytest.raises(RagwardError, match="no_such_setting"):
        local(tmp_path / "data", config=config)
    with pytest.raises(RagwardError, match="model load"):
        local(tmp_path / "data", model=tmp_path / "absent.fga.yaml")
    with pytest.raises(RagwardError, match="`binary`"):
        local(tmp_path / "data", binary=tmp_path / "absent")
    monkeypatch.setenv("RAGWARD_BIN", str(config))
    with pytest.raises(RagwardError, match="`RAGWARD_BIN`"):
        local(tmp_path / "data")
    monkeypatch.delenv("RAGWARD_BIN")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RagwardError, match="or on the PATH"):
        local(tmp_path / "data")


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_program_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, on_path, built_in = tmp_path / "named", tmp_path / "path", tmp_path / "package" / "_bin"
    for folder in (on_path, built_in):
        folder.mkdir(parents=True)
    for path in (named, on_path / "ragward", built_in / "ragward"):
        program(path, "exit 1")
    monkeypatch.setattr(_local, "__file__", str(tmp_path / "package" / "_local.py"))
    monkeypatch.setenv("RAGWARD_BIN", str(named))
    monkeypatch.setenv("PATH", str(on_path))
    assert _local._program(None) == str(built_in / "ragward")
    (built_in / "ragward").unlink()
    assert _local._program(None) == str(named)
    monkeypatch.delenv("RAGWARD_BIN")
    assert _local._program(None) == str(on_path / "ragward")


class HastyClock:
    """A clock on which every pause takes an hour."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, _seconds: float) -> None:
        self.ahead += 3_600


def test_a_server_that_is_never_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody listens on port 1. The clock moves on once the server was found not to be ready, so its log has been read.
    monkeypatch.setattr(_local, "time", HastyClock())
    silent = program(tmp_path / "silent", "echo not yet >&2; echo serving address=127.0.0.1:1 >&2; exec sleep 600")
    with pytest.raises(RagwardError, match="not ready in time:\nnot yet"):
        local(tmp_path / "data", binary=silent)


def test_a_server_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_local, "STOP_SECONDS_MAX", 0.2)
    stubborn = program(tmp_path / "stubborn", "trap '' TERM; echo trapped >&2; while :; do sleep 1; done")
    with pytest.raises(RagwardError, match="not ready in time"):
        local(tmp_path / "data", binary=stubborn, ready_timeout=0.5)


def test_a_server_that_ended_by_itself_is_closed(tmp_path: Path) -> None:
    server = local(tmp_path / "data")
    os.kill(server._process.pid, signal.SIGTERM)
    assert server._process.wait(END_SECONDS_MAX) == 0
    server.close()


PROGRAM = """
import os, signal, sys
from ragward import local
server = local(sys.argv[1])
print(server.url, server._process.pid, flush=True)
if sys.argv[2] == "error":
    raise SystemExit(3)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "forked":
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
    import httpx
    assert httpx.get(server.url + "/livez", trust_env=False).is_success
if sys.argv[2] == "interrupted":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.killpg(os.getpgrp(), signal.SIGINT)
    import httpx
    assert httpx.get(server.url + "/livez", trust_env=False).is_success
"""

ENDS = [("ended", 0), ("error", 3), ("killed", -signal.SIGKILL), ("forked", 0), ("interrupted", 0)]


@pytest.mark.parametrize(("end", "code"), ENDS, ids=[end for end, _ in ENDS])
def test_the_server_ends_with_the_program(tmp_path: Path, end: str, code: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "data"), end],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert ran.returncode == code
    url, pid = ran.stdout.split()
    assert has_ended(int(pid))
    assert is_gone(url)


def test_a_client_of_the_server_takes_the_options_of_clients(server: LocalServer) -> None:
    with server.client(identity=Identity.user("user:anne"), timeout=5, retries=0) as client:
        assert client.url == server.url
