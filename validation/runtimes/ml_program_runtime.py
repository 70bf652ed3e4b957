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
from validation.runtimes.packages_runtime import PackagesRuntime, PlainProgram

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
        executable, watch = load(package, cache=self._cache), self._watch_of(package)
        return lambda inputs: executable.run(inputs, rounding=self._rounding, watch=watch)

    def chunk(self, package: Path) -> "ExecutedChunk":
        prefill = load(package, function="prefill", cache=self._cache)
        return ExecutedChunk(prefill, self._rounding, self._watch_of(package))


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
