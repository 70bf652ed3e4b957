"""A static server for this machine alone: a table of addresses, on 127.0.0.1."""

import shutil
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from fastvlm_compile.demo.site import Site
from fastvlm_compile.errors import OutputError

ADDRESS = "127.0.0.1"
MAX_CONNECTIONS = 16
TIMEOUT_S = 30.0
"""For a client that stops reading or never asks."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # Only such a page may share memory among threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Whatever the page's libraries would like, nothing leaves this machine.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; "
        "connect-src 'self' blob:; img-src 'self' blob: data:; style-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class DemoServer(ThreadingHTTPServer):
    """Serves a site until `shutdown`; at most `MAX_CONNECTIONS` at a time."""

    daemon_threads = True

    def __init__(self, site: Site, *, port: int) -> None:
        """Binds the port; 0 takes one that is free.

        Raises:
            OutputError: the port is taken or may not be used.
        """
        self.site = site
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise OutputError(
                f"port {port} of {ADDRESS} cannot be used: {error.strerror}",
                hint="give another with --port, or --port 0 for any that is free",
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """Waits for a place, then answers in a thread."""
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        """Gives the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away is nothing to tell of."""


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    timeout = TIMEOUT_S
    server_version = "fastvlm-compile"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not told."""

    def _answer(self, *, with_body: bool) -> None:
        port = self.server.server_port
        if self.headers.get("Host") not in {f"{ADDRESS}:{port}", f"localhost:{port}"}:
            # A foreign page whose name was made to mean this machine.
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        address = urlsplit(self.path).path
        opened = self._open(address)
        if opened is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content, size_bytes = opened
        with content:
            self.send_response(HTTPStatus.OK)
            suffix = PurePosixPath(address).suffix if address != "/" else ".html"
            self.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(size_bytes))
            self.end_headers()
            if with_body:
                shutil.copyfileobj(content, self.wfile, 2**20)

    def _open(self, address: str) -> tuple[BinaryIO, int] | None:
        site = self.server.site
        if address in site.contents:
            return BytesIO(site.contents[address]), len(site.contents[address])
        if address not in site.files:
            return None
        try:
            file = site.files[address].open("rb")
        except OSError:
            return None
        return file, site.files[address].stat().st_size

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()
