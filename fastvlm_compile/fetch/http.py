"""One request for a file or the rest of it, and what the answer means. Source: RFC 9110."""

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO

from fastvlm_compile.errors import FetchError

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be gone at the next try."""
_NOT_SATISFIABLE = 416
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")

BROKEN = (http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError)
"""What a connection that fails raises while it is opened or read."""


class PassingError(Exception):
    """This try failed, the next one may not."""


class StaleError(PassingError):
    """The rest does not fit to what is there: only the whole file is of use."""


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What to ask for, when some of a file is there already."""

    start: int
    """First byte that is missing."""
    validator: str
    """The file must still have it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A server's answer that can be used."""

    start: int
    """First byte of the file that the body holds."""
    size_bytes: int
    """Of the whole file."""
    validator: str
    """A strong ETag, or else the time of the last change; empty when the server tells neither."""
    body: http.client.HTTPResponse | None
    """None when nothing is left to be read."""


@contextlib.contextmanager
def ask(url: str, rest: Rest | None, *, timeout_s: float) -> Iterator[Answer]:
    """Ask for a whole file (`rest` None) or for the rest of it.

    Args:
        url: http or https.
        rest: what is there already. The answer may begin at 0 all the same.
        timeout_s: seconds without a byte after which the server is given up.

    Raises:
        FetchError: the server refuses, or answers what cannot be used.
        PassingError, or one of BROKEN: it is worth another try.
    """
    request = urllib.request.Request(url, headers=_headers(rest))
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        response = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            yield _refusal(url, error, rest)
        return
    with response:
        yield _answer(url, response, rest)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(  # noqa: PLR0917 - the library's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.lower().startswith("https://"):
            raise FetchError(f"{req.full_url}: the server redirects to an unsafe address, {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _headers(rest: Rest | None) -> Mapping[str, str]:
    headers = {"User-Agent": "fastvlm-compile", "Accept-Encoding": "identity"}
    if rest is None:
        return headers
    return headers | {"Range": f"bytes={rest.start}-", "If-Range": rest.validator}


def _refusal(url: str, error: urllib.error.HTTPError, rest: Rest | None) -> Answer:
    """The answer that an error status stands for: that there is no rest."""
    if error.code == _NOT_SATISFIABLE and rest is not None:
        match = _CONTENT_RANGE.fullmatch(error.headers.get("Content-Range", ""))
        if match is not None and int(match[3]) == rest.start:
            return Answer(
                start=rest.start, size_bytes=rest.start, validator=rest.validator, body=None
            )
        raise StaleError("the server has no such range")
    if error.code in _PASSING:
        raise PassingError(f"the server answers {error.code} {error.reason}")
    hint = "is the base address right, and has this release been moved?"
    raise FetchError(f"{url}: the server answers {error.code} {error.reason}", hint=hint)


def _answer(url: str, response: http.client.HTTPResponse, rest: Rest | None) -> Answer:
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{url}: the server sends {headers['Content-Encoding']} unasked")
    length = headers.get("Content-Length", "")
    if not length.isascii() or not length.isdigit() or int(length) == 0:
        raise FetchError(
            f"{url}: the server does not tell the archive's length, "
            "so nobody could tell when it is complete"
        )
    validator = _validator(headers)
    if response.status == 200:
        return Answer(start=0, size_bytes=int(length), validator=validator, body=response)
    if response.status != 206 or rest is None:
        raise FetchError(f"{url}: the server answers {response.status}, expected 200")
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    whole = match is not None and match[1] is not None
    if match is None or not whole or int(match[1]) != rest.start:
        raise StaleError("the server sends another range than it was asked for")
    size_bytes = int(match[3])
    if int(match[2]) + 1 != size_bytes or int(length) != size_bytes - rest.start:
        raise StaleError("the server contradicts itself about the length of the rest")
    if validator and validator != rest.validator:
        raise StaleError("the server sends the rest of another file")
    return Answer(start=rest.start, size_bytes=size_bytes, validator=rest.validator, body=response)


def _validator(headers: Message) -> str:
    """A weak ETag names equal meaning, not equal bytes: it is of no use here (RFC 9110, 13.1.5)."""
    tag = str(headers.get("ETag", ""))
    if tag.startswith('"') and tag.endswith('"') and len(tag) > 1:
        return tag
    return str(headers.get("Last-Modified", ""))
