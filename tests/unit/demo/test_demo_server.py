"""The demo's server gives what is in its table to this machine, and nothing else to anybody."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvlm_compile.demo.server import DemoServer
from fastvlm_compile.demo.site import Site
from fastvlm_compile.errors import OutputError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DemoServer]:
    page = tmp_path / "index.html"
    page.write_text("<p>page")
    (tmp_path / "a.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret").write_text("secret")
    files = {"/": page, "/assets/a.wasm": tmp_path / "a.wasm", "/gone": tmp_path / "gone"}
    site = Site(variant="fp32", files=files, contents={"/settings.json": b"{}"})
    with DemoServer(site, port=0) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def ask(
    server: DemoServer, address: str, *, method: str = "GET", host: str = ""
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {"Host": host} if host else {}
    connection.request(method, address, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("address", "kind", "content"),
    [
        ("/", "text/html; charset=utf-8", b"<p>page"),
        ("/assets/a.wasm", "application/wasm", b"\0asm"),
        ("/settings.json?v=1", "application/json", b"{}"),
    ],
)
def test_each_address_has_its_type_and_the_headers_of_an_isolated_page(
    server: DemoServer, address: str, kind: str, content: bytes
) -> None:
    status, headers, body = ask(server, address)
    assert (status, headers["Content-Type"], body) == (200, kind, content)
    assert headers["Content-Length"] == str(len(content))
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    status, headers, body = ask(server, address, method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(content)), b"")


@pytest.mark.parametrize(
    "address", ["/secret", "/../secret", "/assets/../secret", "/%2e%2e/secret", "//secret", "/gone"]
)
def test_what_is_not_in_the_table_does_not_exist(server: DemoServer, address: str) -> None:
    assert ask(server, address)[0] == 404


def test_a_foreign_name_for_this_machine_is_refused(server: DemoServer) -> None:
    assert ask(server, "/", host="evil.example")[0] == 403
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0] == 200


def test_nothing_can_be_sent(server: DemoServer) -> None:
    assert ask(server, "/", method="POST")[0] == 501


def test_a_port_that_is_taken_is_told_with_a_way_out(server: DemoServer) -> None:
    with pytest.raises(OutputError, match=rf"port {server.server_port} of 127\.0\.0\.1") as caught:
        DemoServer(server.site, port=server.server_port)
    assert "--port" in caught.value.hint
