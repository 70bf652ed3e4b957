"""Fixtures of the fetch tests: the server runs, a fetch from it is one call."""

import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from fetch_server import QUICK, RELEASE, Handler, Served, make_archive

from fastvlm_compile.fetch.fetch import Fetched, FetchRequest, fetch
from fastvlm_compile.progress import Progress, silent


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Served(content=make_archive())


@pytest.fixture
def base_url(served: Served) -> Iterator[str]:
    """The address below which any path is answered with what `served` says."""
    handler = type("ServingHandler", (Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/models"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run_fetch(base_url: str, tmp_path: Path) -> Callable[..., Fetched]:
    """Fetches `0.5b-stage3` into `tmp_path / "model"`."""

    def run(*, progress: Progress = silent, **options: object) -> Fetched:
        options = {"release": RELEASE, "base_url": base_url, "patience": QUICK} | options
        return fetch(FetchRequest(folder=tmp_path / "model", **options), progress)

    return run
