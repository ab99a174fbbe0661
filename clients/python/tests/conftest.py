from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from ragward import LocalServer, local
from tests import wiki
from tests.world import CONFIG, Asking, fill


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RAGWARD_SERVER", "RAGWARD_CA_FILE", "RAGWARD_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A real server with the documents of `tests.world`. `RAGWARD_BIN` names its program, or it is on the PATH."""
    folder = tmp_path_factory.mktemp("ragward")
    config = folder / "ragward.toml"
    config.write_text(CONFIG)
    with local(folder / "data", config=config) as server:
        fill(server)
        yield server


@pytest.fixture(scope="module")
def world() -> Iterator[wiki.Wiki]:
    """A real server with the documents of `tests.wiki`, for the tests of one adapter."""
    with wiki.served() as served:
        yield served


@pytest.fixture(params=["threads", "asyncio"])
async def asking(server: LocalServer, request: pytest.FixtureRequest) -> AsyncIterator[Asking]:
    """Each client in turn, without an identity of its own."""
    asking = Asking(server.client() if request.param == "threads" else server.async_client())
    yield asking
    await asking.close()
