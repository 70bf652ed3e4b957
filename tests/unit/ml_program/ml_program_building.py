"""Small ML Programs written by coremltools, and what their ops should give."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    logging.disable(logging.CRITICAL)  # coremltools tells of every proxy it lacks on Linux
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813 - coremltools' own idiom
    from coremltools.converters.mil.mil import Function, Program, types

    logging.disable(logging.NOTSET)

logging.getLogger("coremltools").setLevel(logging.ERROR)

TARGETS = {
    5: ct.target.iOS15,
    6: ct.target.iOS16,
    7: ct.target.iOS17,
    8: ct.target.iOS18,
    9: ct.target.iOS26,
}
_PROTO = {"float32": types.fp32, "int32": types.int32, "float16": types.fp16}
# Element types that cannot cross a package's border: sent as int32 and cast inside.
_INNER = {"bool": "bool", "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One op with run-time inputs and constant attributes.

    Attributes:
        inputs: arrays that are computed at run time; a list where the op takes several.
        expected: what it should give, from the inputs; None: coremltools' own value inference.
    """

    op: str
    inputs: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    expected: Callable[..., Any] | None = None
    rtol: float = 1e-5

    def __str__(self) -> str:
        shapes = {
            k: [a.shape for a in v] if isinstance(v, list) else v.shape
            for k, v in self.inputs.items()
        }
        return f"{self.op} {shapes} {dict(self.attributes)}"


def save(
    program: Any,
    path: Path,
    *,
    opset: int = 8,
    precision: ct.precision = ct.precision.FLOAT32,
    passes: ct.PassPipeline | None = None,
    **convert: Any,
) -> Path:
    """Convert a MIL program (or torch module) and save it as a package."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=TARGETS[opset],
            compute_precision=precision,
            pass_pipeline=passes or ct.PassPipeline.DEFAULT,
            skip_model_load=True,
            **convert,
        )
    model.save(str(path))
    return path


def save_cases(
    cases: Sequence[Case], path: Path, *, opset: int = 8
) -> tuple[Path, dict[str, np.ndarray], list[list[np.ndarray]]]:
    """One package that runs every case; its inputs; the results each case should give."""
    feeds: dict[str, np.ndarray] = {}
    for index, case in enumerate(cases):
        for name, given in case.inputs.items():
            for place, array in enumerate(given if isinstance(given, list) else [given]):
                key = f"c{index}_{name}_{place}"
                feeds[key] = array.astype(np.int32) if str(array.dtype) in _INNER else array
    expected: list[list[np.ndarray]] = []
    specs = {
        name: mb.placeholder(shape=array.shape, dtype=_PROTO[str(array.dtype)])
        for name, array in feeds.items()
    }
    with Function(specs, TARGETS[opset]) as function:
        outputs = []
        for index, case in enumerate(cases):
            results = _apply(case, index, function.inputs)
            expected.append(_expected(case, len(results)))
            for place, result in enumerate(results):
                outputs.append(_outer(result, f"c{index}_y_{place}"))
        function.set_outputs(outputs)
    program = Program()
    program.add_function("main", function)
    saved = save(program, path, opset=opset, passes=ct.PassPipeline.EMPTY)
    return saved, feeds, expected


def _apply(case: Case, index: int, named: Mapping[str, Any]) -> list[Any]:
    given = {}
    for name, arrays in case.inputs.items():
        many = isinstance(arrays, list)
        values = []
        for place, array in enumerate(arrays if many else [arrays]):
            value = named[f"c{index}_{name}_{place}"]
            inner = _INNER.get(str(array.dtype))
            values.append(mb.cast(x=value, dtype=inner) if inner else value)
        given[name] = values if many else values[0]
    found = getattr(mb, case.op)(**given, **case.attributes)
    return list(found) if isinstance(found, list | tuple) else [found]


def _outer(result: Any, name: str) -> Any:
    if result.dtype in (types.fp32, types.int32, types.fp16):
        return mb.identity(x=result, name=name)
    return mb.cast(x=result, dtype="int32", name=name)


def _expected(case: Case, count: int) -> list[np.ndarray]:
    if case.expected is not None:
        found = case.expected(**case.inputs)
        return [np.asarray(part) for part in (found if isinstance(found, tuple) else (found,))]
    known = getattr(mb, case.op)(**case.inputs, **case.attributes)
    parts = list(known) if isinstance(known, list | tuple) else [known]
    assert len(parts) == count
    assert all(part.val is not None for part in parts), f"no value inference: {case}"
    return [np.asarray(part.val) for part in parts]


def check_cases(cases: Sequence[Case], path: Path, *, opset: int = 8) -> None:
    """Run all cases from one saved package and compare each with what it should give.

    Floats within `case.rtol` in relative L2, all else exactly; every case that fails is told.
    """
    from validation.runtimes.ml_program.executable import load

    package, feeds, expected = save_cases(cases, path / "cases.mlpackage", opset=opset)
    found = load(package).run(feeds)
    failures = []
    for index, (case, wanted) in enumerate(zip(cases, expected, strict=True)):
        for place, want in enumerate(wanted):
            got = found[f"c{index}_y_{place}"]
            reason = mismatch(got, want, case.rtol)
            if reason:
                failures.append(f"{case} [{place}]: {reason}")
    assert not failures, "\n".join(failures)


def mismatch(got: np.ndarray, want: np.ndarray, rtol: float) -> str:
    """Why two arrays differ; empty if they do not."""
    if got.shape != want.shape:
        return f"shape {got.shape}, not {want.shape}"
    if want.dtype.kind != "f":
        equal = np.array_equal(got.astype(np.int64), want.astype(np.int64))
        return "" if equal else f"{got} is not {want}"
    left, right = got.astype(np.float64).reshape(-1), want.astype(np.float64).reshape(-1)
    finite = np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return "non-finite elements differ"
    error = float(np.linalg.norm(left[finite] - right[finite]))
    size = float(np.linalg.norm(right[finite]))
    return "" if error <= rtol * size else f"relative L2 {error / max(size, 1e-30):.3g}"
