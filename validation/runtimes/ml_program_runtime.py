"""The packages of a bundle executed op by op on the CPU, without Core ML, on any machine.

What it shows is that the packages say the right thing ("ML Program parity"), not that Core ML
compiles them or what Core ML computes.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from validation.runtimes.chunked_decoder import Arrays
from validation.runtimes.core_ml_paths import CoreMLPaths
from validation.runtimes.language_layout import FunctionName
from validation.runtimes.ml_program.cache import DEFAULT_LIMIT_BYTES, ConstantCache
from validation.runtimes.ml_program.executable import Executable, Rounding, load
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program.watch import Watch
from validation.runtimes.package_peaks import PeakWatch
from validation.runtimes.packages_runtime import PackagesRuntime
from validation.runtimes.sized_program import PlainProgram, SizedProgram

WatchOf = Callable[[Path], Watch | None]
"""The watch that is told of every op of a package."""


def executor_name(rounding: Rounding) -> str:
    """`ML Program executor (torch 2.13.0, CPU, rounding fp16)`."""
    version = torch.__version__.split("+")[0]
    return f"ML Program executor (torch {version}, CPU, rounding {rounding})"


class MLProgramRuntime(PackagesRuntime[State]):
    """A `Runtime` over the packages of a bundle.

    Args:
        paths: the parts.
        rounding: whether fp16-typed results are rounded to fp16.
        cache_bytes: decompressed and widened constants that are kept, all packages together.
        watch_of: called when a package is opened.

    Raises:
        PackagesMissingError, LanguageLayoutError: at once, for what is missing or damaged.
        PackageError, UnsupportedOp: when a package is first needed.
    """

    executed_by_core_ml = False

    def __init__(
        self,
        paths: CoreMLPaths,
        *,
        rounding: Rounding = "none",
        cache_bytes: int = DEFAULT_LIMIT_BYTES,
        watch_of: WatchOf = lambda _: None,
    ) -> None:
        super().__init__(paths, _Opener(rounding, ConstantCache(cache_bytes), watch_of))
        self._rounding = rounding

    @property
    def executor(self) -> str:
        """See `executor_name`."""
        return executor_name(self._rounding)


class _Opener:
    def __init__(self, rounding: Rounding, cache: ConstantCache, watch_of: WatchOf) -> None:
        self._rounding = rounding
        self._cache = cache
        self._watch_of = watch_of

    def plain(self, package: Path) -> PlainProgram:
        return executed_program(
            package, rounding=self._rounding, cache=self._cache, watch=self._watch_of(package)
        )

    def chunk(self, package: Path) -> "ExecutedChunk":
        prefill = load(package, function="prefill", cache=self._cache)
        return ExecutedChunk(prefill, self._rounding, self._watch_of(package))


def executed_program(
    package: Path,
    *,
    rounding: Rounding,
    cache: ConstantCache | None = None,
    watch: Watch | None = None,
) -> SizedProgram:
    """A package without state in the executor, opened at its first run.

    Args:
        package: the `.mlpackage`.
        rounding: see `MLProgramRuntime`.
        cache: see `load`.
        watch: told of every op of every function.
    """
    opened: list[Executable] = []

    def open_function(function: str | None) -> PlainProgram:
        if not opened:
            opened.append(load(package, cache=cache))
        executable = opened[0] if function is None else opened[0].with_function(function)
        return lambda inputs: executable.run(inputs, rounding=rounding, watch=watch)

    return SizedProgram(package, open_function)


class ExecutedChunk:
    """A package of the decoder in the executor; a `ChunkProgram`.

    Args:
        prefill: that function of the package.
        rounding: see `MLProgramRuntime`.
        watch: told of every op of both functions.
    """

    def __init__(self, prefill: Executable, rounding: Rounding, watch: Watch | None = None) -> None:
        self._functions = {"prefill": prefill, "decode": prefill.with_function("decode")}
        self._rounding = rounding
        self._watch = watch

    def new_state(self) -> State:
        """All zeros, for both functions."""
        return self._functions["prefill"].make_state()

    def copy_state(self, state: State) -> State:
        """An independent copy."""
        return state.copy()

    def run(self, function: FunctionName, inputs: Arrays, state: State) -> Arrays:
        """Runs a function once."""
        return self._functions[function].run(
            inputs, state=state, rounding=self._rounding, watch=self._watch
        )

    def rest(self) -> None:
        """Lets go of decompressed weights."""
        self._functions["prefill"].forget_constants()

    def seen(self) -> bytes:
        """What its watch has noticed."""
        return self._watch.seen() if isinstance(self._watch, PeakWatch) else b""

    def recall(self, seen: bytes) -> None:
        """Lets its watch have noticed that."""
        if isinstance(self._watch, PeakWatch):
            self._watch.recall(seen)
