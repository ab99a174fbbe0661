"""A server of this program's own, for notebooks, examples and tests."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import httpx

from ragward.async_client import AsyncClient
from ragward.client import Client
from ragward.errors import RagwardError

if TYPE_CHECKING:
    # `typing` has it since Python 3.11.
    from typing_extensions import Self

#: The seconds after which a server that is not ready is given up.
READY_SECONDS_MAX = 30.0
#: The seconds that a server has to finish what it does. Then it is killed.
STOP_SECONDS_MAX = 10.0
#: The pause between two questions whether the server is ready.
READY_POLL_SECONDS = 0.02
#: The last lines of the log, which an error shows.
LOG_LINES_MAX = 20

_LISTENS = re.compile(r"serving address=(\S+)")

# Starts the server as this very process, beside a watcher that stops it when the pipe at standard input closes. The system
# closes the pipe however the program ends, also when it is killed. A line in it says that there is nothing left to stop.
_WATCHED = """
exec 3<&0
( read -r _ <&3 || kill "$$" ) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
"""


class LocalServer:
    """A running server. It ends with this program, or with `close`, or with its `with` block."""

    def __init__(self, command: list[str], environment: dict[str, str], ready_seconds: float) -> None:
        self._owner = os.getpid()
        self._log: deque[str] = deque(maxlen=LOG_LINES_MAX)
        self._told = Event()
        self._address = ""
        # Its own session keeps Ctrl-C, and the interrupt of a notebook, from stopping it.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHED, "ragward", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
        self._reader = Thread(target=self._read_log, name="ragward-log", daemon=True)
        self._reader.start()
        atexit.register(self.close)
        try:
            self._wait_until_ready(time.monotonic() + ready_seconds)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The address of the server. OpenFGA's clients take it as their `api_url`."""
        return f"http://{self._address}"

    def client(self, **options: Any) -> Client:  # noqa: ANN401 - they are those of `Client`.
        """Return a client of this server. The options are those of `Client`."""
        return Client(self.url, **options)

    def async_client(self, **options: Any) -> AsyncClient:  # noqa: ANN401 - they are those of `AsyncClient`.
        """Return an asynchronous client of this server. The options are those of `AsyncClient`."""
        return AsyncClient(self.url, **options)

    def close(self) -> None:
        """Stop the server, and wait until it has ended."""
        # A forked child has a copy of this object, and not the server.
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            if self._process.poll() is None:
                self._process.terminate()
            self._wait()
            _tell(pipe)
        # A child of the server may keep its log open. The thread does not keep the program from ending.
        self._reader.join(STOP_SECONDS_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LocalServer({self.url!r})"

    def _read_log(self) -> None:
        log = self._process.stderr
        if log is None:
            return
        with log:
            for line in log:
                self._log.append(line.rstrip())
                found = _LISTENS.search(line)
                if found and not self._address:
                    self._address = found.group(1)
                    self._told.set()
        self._told.set()

    def _wait_until_ready(self, until: float) -> None:
        self._told.wait(max(0.0, until - time.monotonic()))
        # No proxy of the environment is asked for this machine.
        with httpx.Client(trust_env=False) as http:
            while time.monotonic() < until:
                if self._process.poll() is not None:
                    self._reader.join()
                    raise RagwardError(f"the server ended before it was ready:\n{self._last_lines()}")
                if self._address and self._is_ready(http):
                    return
                time.sleep(READY_POLL_SECONDS)
        raise RagwardError(f"the server is not ready in time:\n{self._last_lines()}")

    def _is_ready(self, http: httpx.Client) -> bool:
        try:
            looked = http.get(f"{self.url}/readyz", timeout=STOP_SECONDS_MAX)
            # A new data directory has no model yet, and the program may be about to load one.
            return looked.is_success or looked.json()["reasons"] == ["authorizer"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False

    def _last_lines(self) -> str:
        return "\n".join(self._log)

    def _wait(self) -> None:
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def local(
    data_dir: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    binary: str | os.PathLike[str] | None = None,
    ready_timeout: float = READY_SECONDS_MAX,
) -> LocalServer:
    """Start a server over a data directory, and return it once it is ready.

    It listens on a free port of this machine and believes the user that a request names, so every program on this machine can
    ask it as anybody. It is for trying things out.

    - `model`: a file to load before, as `ragward model load` does: an OpenFGA model, or a store file with its tuples.
    - `config`: a configuration file. Variables of the environment do not change the server's settings.
    - `binary`: the program `ragward`; without it the one in this package, the one that `RAGWARD_BIN` names, or the one on the
      `PATH`.
    - `ready_timeout`: the seconds after which a server that is not ready is given up.
    """
    program = _program(binary)
    environment = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    # The log tells the port.
    environment["RUST_LOG"] = "info"
    options = ["--data", os.fspath(data_dir)]
    if config is not None:
        options += ["--config", os.fspath(config)]
    if model is not None:
        _run([program, "model", "load", os.fspath(model), *options], environment, ready_timeout)
    serve = [program, "serve", *options, "--listen", "127.0.0.1:0", "--insecure-identity"]
    return LocalServer(serve, environment, ready_timeout)


def _is_setting(variable: str) -> bool:
    return variable.startswith("RAGWARD_")


def _program(binary: str | os.PathLike[str] | None) -> str:
    """Return the path of the program `ragward`."""
    if binary is not None:
        return _existing(os.fspath(binary), "`binary`")
    built_in = Path(__file__).parent / "_bin" / "ragward"
    if built_in.is_file():
        return str(built_in)
    named = os.environ.get("RAGWARD_BIN")
    if named:
        return _existing(named, "`RAGWARD_BIN`")
    found = shutil.which("ragward")
    if found is None:
        raise RagwardError(
            "there is no program `ragward` in this package or on the PATH; build it with `cargo install --path . --locked` in "
            "a clone of Ragward, or let the variable `RAGWARD_BIN` name it"
        )
    return found


def _existing(path: str, named_by: str) -> str:
    if not os.access(path, os.X_OK) or not Path(path).is_file():
        raise RagwardError(f"{named_by} is `{path}`, which is no program")
    return path


def _run(command: list[str], environment: dict[str, str], seconds_max: float) -> None:
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RagwardError(f"`{' '.join(command[1:3])}` did not end in time") from error
    if done.returncode != 0:
        raise RagwardError(f"`{' '.join(command[1:3])}` failed:\n{done.stderr.strip()}")


def _tell(pipe: IO[str]) -> None:
    """Tell the watcher that there is nothing left to stop."""
    try:
        pipe.write("\n")
        pipe.close()
    except OSError:
        # The watcher has gone already.
        pass
