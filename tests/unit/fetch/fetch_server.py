"""A server on 127.0.0.1 that misbehaves on order, and archives for it to serve."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from fastvlm_compile.fetch.download import Patience
from fastvlm_compile.fetch.names import RELEASES

RELEASE = RELEASES["0.5b-stage3"]
QUICK = Patience(timeout_s=5.0, max_idle_tries=3, max_tries=40, first_pause_s=0.0)


@dataclass
class Served:
    """What the server serves, and how; a test changes it between requests."""

    content: bytes = b""
    etag: str = '"one"'
    ranges: bool = True
    """Whether it understands `Range`."""
    cut_after: list[int] = field(default_factory=list)
    """Bytes of the body after which it hangs up, one for each request; then it does not."""
    statuses: list[int] = field(default_factory=list)
    """Errors to answer first."""
    extra_length: int = 0
    """How much more it announces than it sends."""
    after_request: Callable[[int], None] | None = None
    """Called with the number of requests so far."""
    seen: list[str | None] = field(default_factory=list)
    """`Range` of each request."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def do_GET(self) -> None:
        served = self.served
        self.close_connection = True
        wanted = self.headers.get("Range")
        served.seen.append(wanted)
        if served.statuses:
            self.send_response(served.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, etag = served.content, served.etag
        start = 0
        if wanted and served.ranges and self.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            last = len(content) + served.extra_length - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start + served.extra_length))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        body = content[start:]
        if served.cut_after:
            body = body[: served.cut_after.pop(0)]
        self.wfile.write(body)
        if served.after_request is not None:
            served.after_request(len(served.seen))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        del format, args


FILES = {
    "config.json": b'{"model_type": "llava_qwen2"}',
    "model.safetensors": bytes(range(256)) * 400,
    "vocab.json": b"{}",
}


def make_archive(
    files: dict[str, bytes] | None = None, *, top: str = f"{RELEASE.folder}/"
) -> bytes:
    """A good archive, as Apple packs them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        if top:
            archive.mkdir(top.removesuffix("/"))
        for name, data in (files or FILES).items():
            archive.writestr(top + name, data)
        archive.writestr("__MACOSX/._config.json", b"litter")
    return buffer.getvalue()


def left_in(folder: Path) -> list[str]:
    """Names of all that lies in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())
