"""The packages of a bundle in Apple's Core ML. Only on macOS, through coremltools.

Source: coremltools' API of `MLModel` (`function_name`, `make_state`, `predict(state=...)`) and
`MLState` (`read_state`, `write_state`), coremltools 9. Not run where this was written; the runtime
that can run there is `ml_program_runtime.py`, and both share everything but the calls below.
Some combinations of compute units abort the whole process: use one process for each.
"""

import contextlib
import io
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reference.errors import UserError
from validation.runtimes.chunked_decoder import Arrays
from validation.runtimes.core_ml_paths import CoreMLPaths
from validation.runtimes.language_layout import FunctionName
from validation.runtimes.packages_runtime import PackagesRuntime
from validation.runtimes.sized_program import PlainProgram, SizedProgram

if TYPE_CHECKING:
    from coremltools.models.model import MLModel, MLState

ComputeUnits = Literal["all", "cpu_only", "cpu_and_gpu", "cpu_and_ne"]
COMPUTE_UNITS: tuple[ComputeUnits, ...] = ("all", "cpu_only", "cpu_and_gpu", "cpu_and_ne")


_NOT_LOADED = "You will not be able to run predict()"
_REASON = "Underlying exception message was: "
"""Words of coremltools' `MLModel` when Core ML refuses a package."""


class CoreMLUnavailableError(UserError):
    """Core ML cannot run here."""


class CoreMLRefusedError(UserError):
    """Core ML does not take a package."""


def why_unavailable(*, system: str = sys.platform, release: str | None = None) -> str:
    """Why Core ML cannot run the packages here, empty where it can.

    Args:
        system: as `sys.platform`.
        release: of macOS, by default this machine's.
    """
    if system != "darwin":
        return f"Core ML needs macOS, this is {system}"
    release = platform.mac_ver()[0] if release is None else release
    if int(release.split(".")[0] or 0) < 15:
        return f"packages with states need macOS 15, this is {release}"
    return ""


class CoreMLRuntime(PackagesRuntime["MLState | None"]):
    """A `Runtime` over the packages of a bundle, executed by Core ML.

    Args:
        paths: the parts; the decoder's packages must be float16, as Core ML's states are.
        compute_units: which processors may be used.

    Raises:
        CoreMLUnavailableError: this is no Mac, or its system is too old.
        PackagesMissingError, LanguageLayoutError: a part is missing or damaged.
    """

    executed_by_core_ml = True

    def __init__(self, paths: CoreMLPaths, *, compute_units: ComputeUnits = "all") -> None:
        if compute_units not in COMPUTE_UNITS:
            raise CoreMLUnavailableError(
                f"compute units '{compute_units}' are none of {', '.join(COMPUTE_UNITS)}"
            )
        if reason := why_unavailable():
            raise CoreMLUnavailableError(
                reason, hint="the runtime ml_program executes the same packages anywhere"
            )
        super().__init__(paths, CoreMLOpener(compute_units))
        self._compute_units = compute_units

    @property
    def executor(self) -> str:
        """`Core ML (macOS 15.5, coremltools 9.0, compute units all)`."""
        return core_ml_name(self._compute_units)


def core_ml_name(compute_units: ComputeUnits) -> str:
    """`Core ML (macOS 15.5, coremltools 9.0, compute units all)`."""
    with _quiet():
        import coremltools
    return (
        f"Core ML (macOS {platform.mac_ver()[0]}, coremltools {coremltools.__version__}, "
        f"compute units {compute_units})"
    )


class CoreMLOpener:
    """Opens packages with coremltools.

    Args:
        compute_units: which processors may be used.
    """

    def __init__(self, compute_units: ComputeUnits) -> None:
        self._compute_units = compute_units

    def plain(self, package: Path) -> PlainProgram:
        """A package without state; each function is compiled when it is first run.

        Raises:
            CoreMLRefusedError: from the run, where Core ML does not load the function.
        """

        def open_function(function: str | None) -> PlainProgram:
            model = self._open(package, function)
            return lambda inputs: _arrays(model.predict(dict(inputs)))

        return SizedProgram(package, open_function)

    def chunk(self, package: Path) -> "CoreMLChunk":
        """A package of the decoder.

        Raises:
            CoreMLRefusedError: Core ML does not load it.
        """
        return CoreMLChunk(
            {
                "prefill": self._open(package, "prefill"),
                "decode": self._open(package, "decode"),
            }
        )

    def _open(self, package: Path, function: str | None) -> "MLModel":
        """Compiles and loads a function; Core ML maps the weights once per package."""
        with _quiet(), warnings.catch_warnings(record=True) as caught:
            import coremltools as ct

            warnings.simplefilter("always")
            units = getattr(ct.ComputeUnit, self._compute_units.upper())
            model = ct.models.MLModel(str(package), compute_units=units, function_name=function)
        # coremltools only warns, and fails at the first use without the reason.
        for each in caught:
            if issubclass(each.category, RuntimeWarning) and _NOT_LOADED in str(each.message):
                reason = str(each.message).partition(_REASON)[2] or str(each.message)
                raise CoreMLRefusedError(
                    f"{package.name}: Core ML does not load {function or 'the package'}: {reason}"
                )
        return model


class CoreMLChunk:
    """A package of the decoder in Core ML; a `ChunkProgram`.

    Args:
        functions: `prefill` and `decode`, loaded. A state made by one serves the other: both
            declare the same.
    """

    def __init__(self, functions: "dict[FunctionName, MLModel]") -> None:
        self._functions = functions
        described = functions["prefill"].get_spec().description.functions
        self._states = sorted({state.name for function in described for state in function.state})

    def new_state(self) -> "MLState | None":
        """All zeros; None for a package without states."""
        return self._functions["prefill"].make_state() if self._states else None

    def copy_state(self, state: "MLState | None") -> "MLState | None":
        """A fresh state with the same content."""
        twin = self.new_state()
        if state is not None and twin is not None:
            for name in self._states:
                twin.write_state(name, state.read_state(name))
        return twin

    def run(self, function: FunctionName, inputs: Arrays, state: "MLState | None") -> Arrays:
        """Runs a function once."""
        return _arrays(self._functions[function].predict(dict(inputs), state=state))

    def rest(self) -> None:
        """Core ML maps weights, and keeps what it likes."""

    def seen(self) -> bytes:
        """Core ML shows nothing of the values inside."""
        return b""

    def recall(self, seen: bytes) -> None:
        """There is nothing to recall."""


def _arrays(outputs: "dict[str, object]") -> Arrays:
    import numpy as np

    return {name: np.asarray(value) for name, value in outputs.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """coremltools talks while it is imported and while it compiles."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
