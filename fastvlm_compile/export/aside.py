"""A step of an export in a process of its own, whose memory all goes back to the system at its end.

Converters keep what they have converted in circles and caches, and an allocator keeps what was
freed; so the memory that many steps take one after the other grows with their number.
"""

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from fastvlm_compile.export.errors import ExportError, ExportStoppedError
from reference.errors import UserError

_M_MMAP_THRESHOLD = -3
"""glibc's name for the size from which a block is given back when it is freed (`mallopt(3)`)."""

_GIVEN_BACK_FROM_BYTES = 2**20


def run_aside(step: Callable[..., None], *arguments: object) -> None:
    """Call `step(*arguments)` in a fresh process and wait for its end.

    Args:
        step: a module's function.
        arguments: what can be pickled; tensors are better named than given.

    Raises:
        UserError, ExportError: what the step raised, in its class.
        ExportStoppedError: the process was ended from outside.
        RuntimeError: the step raised anything else; its traceback is on stderr.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads in mid-work
    reader, writer = context.Pipe(duplex=False)
    with reader:
        child = context.Process(target=_run, args=(writer, step, arguments), daemon=True)
        child.start()
        writer.close()  # the child's end is the only one now, so its death ends the wait
        try:
            failure: _Failure | None = reader.recv()
        except EOFError:
            failure = None
        child.join()
    if failure is not None:
        raise failure.again()
    if child.exitcode:
        raise _death(step.__name__, child.exitcode)


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """An error on its way between processes; not every error can be pickled."""

    kind: type[UserError | ExportError]
    message: str
    hint: str

    def again(self) -> UserError | ExportError:
        if issubclass(self.kind, UserError):
            return self.kind(self.message, hint=self.hint)
        return self.kind(self.message)


def _run(writer: Connection, step: Callable[..., None], arguments: tuple[object, ...]) -> None:
    give_back_freed_memory()
    try:
        step(*arguments)
    except (UserError, ExportError) as error:
        hint = error.hint if isinstance(error, UserError) else ""
        message = error.message if isinstance(error, UserError) else str(error)
        writer.send(_Failure(kind=type(error), message=message, hint=hint))
    writer.close()


def give_back_freed_memory() -> None:
    """Let the allocator return large blocks at once. Without a word where it is not glibc's.

    Left alone it raises the size from which it does so with every block that is freed, up to 32
    MiB, and what is smaller stays with the process between blocks that are still in use.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_FROM_BYTES)


def _death(name: str, exit_code: int) -> Exception:
    if exit_code > 0:
        return RuntimeError(f"{name} failed in a process of its own; the traceback is above")
    ended_by = signal.Signals(-exit_code)
    out_of_memory = "the system stops a process for which there is not enough memory"
    return ExportStoppedError(
        f"{name}: its process was ended by {ended_by.name}",
        hint=out_of_memory if ended_by is signal.SIGKILL else "",
    )
