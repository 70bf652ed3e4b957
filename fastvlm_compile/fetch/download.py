"""A download that goes on where it was cut, until it is complete or nothing comes any more."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from fastvlm_compile.console import format_bytes
from fastvlm_compile.errors import FetchError
from fastvlm_compile.fetch.http import BROKEN, Answer, PassingError, Rest, StaleError, ask
from fastvlm_compile.fetch.part import Origin, Part
from fastvlm_compile.progress import Progress

_BLOCK_BYTES = 2**20
_FLUSH_BYTES = 256 * 2**20
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long a server is asked."""

    timeout_s: float = 30.0
    """Without a byte."""
    max_idle_tries: int = 5
    """Tries in a row that brought nothing."""
    max_tries: int = 200
    """In all: a server that cuts after each byte must not keep us for ever."""
    max_drops: int = 4
    """How often what came may be dropped, because the rest cannot be had."""
    first_pause_s: float = 1.0
    """Before the second try; doubled after each that brought nothing."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The file that is downloaded."""

    url: str
    max_bytes: int
    """A longer file is refused."""
    make_room: Callable[[int], None]
    """Told how long the file is before anything is written; raises if the disk is too full."""
    patience: Patience


def download(wanted: Wanted, part: Part, progress: Progress) -> None:
    """Fill `part` with the whole file; what it holds already is not asked for again.

    Args:
        wanted: the file.
        part: open; bytes of another file, or of none known, are dropped.
        progress: told of bytes.

    Raises:
        FetchError: the server refuses, lies, or sends nothing any more. What came is kept.
    """
    if part.origin is None or part.origin.url != wanted.url or not part.origin.validator:
        part.restart(None)
    patience = wanted.patience
    idle = 0
    reason: str | None = None
    for _ in range(patience.max_tries):
        before = part.received_bytes
        reason = _try(wanted, part, progress)
        if reason is None:
            return
        idle = 0 if part.received_bytes > before else idle + 1
        if idle >= patience.max_idle_tries or part.num_drops > patience.max_drops:
            break
        progress(part.have_bytes, _size(part), f"{reason}; trying again")
        time.sleep(min(_LONGEST_PAUSE_S, patience.first_pause_s * 2**idle))
    raise FetchError(
        f"{wanted.url}: {reason}; {format_bytes(part.have_bytes)} came in all",
        hint="what came is kept: the same command goes on from there",
    )


def _try(wanted: Wanted, part: Part, progress: Progress) -> str | None:
    """One request; None when the file is complete, else what went wrong."""
    url, origin = wanted.url, part.origin
    rest = None
    if origin is not None and origin.validator and part.have_bytes:
        rest = Rest(start=part.have_bytes, validator=origin.validator)
    try:
        with ask(url, rest, timeout_s=wanted.patience.timeout_s) as answer:
            if answer.size_bytes > wanted.max_bytes:
                raise FetchError(
                    f"{url}: the server announces {format_bytes(answer.size_bytes)}, "
                    f"{format_bytes(wanted.max_bytes)} are the most that this can be"
                )
            wanted.make_room(answer.size_bytes)
            if not _goes_on(part, answer):
                _start_over(url, part, answer)
            return None if part.complete else _read(part, answer, progress)
    except StaleError as error:
        part.restart(None)
        return str(error)
    except PassingError as error:
        return str(error)
    except BROKEN as error:
        return f"the connection failed: {error or type(error).__name__}"


def _goes_on(part: Part, answer: Answer) -> bool:
    """Whether the answer belongs behind the bytes that are there, or finds nothing missing."""
    if part.origin is None or part.origin.size_bytes != answer.size_bytes:
        return False
    same = bool(answer.validator) and answer.validator == part.origin.validator
    return same and (answer.start == part.have_bytes or part.complete)


def _start_over(url: str, part: Part, answer: Answer) -> None:
    if answer.body is None:
        raise StaleError("the server tells two lengths of this file")
    size_bytes, validator = answer.size_bytes, answer.validator
    part.restart(Origin(url=url, size_bytes=size_bytes, validator=validator))


def _read(part: Part, answer: Answer, progress: Progress) -> str | None:
    assert answer.body is not None, "an incomplete part was answered with no body"
    flushed = part.have_bytes
    try:
        while (left := answer.size_bytes - part.have_bytes) > 0:
            block = answer.body.read1(min(left, _BLOCK_BYTES))
            if not block:
                return "the connection was closed before the end"
            part.append(block)
            progress(part.have_bytes, answer.size_bytes, "fetching the archive")
            if part.have_bytes - flushed >= _FLUSH_BYTES:
                part.flush()
                flushed = part.have_bytes
    finally:
        part.flush()
    return None


def _size(part: Part) -> int:
    return part.have_bytes if part.origin is None else part.origin.size_bytes
