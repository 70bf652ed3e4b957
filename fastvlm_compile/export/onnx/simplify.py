"""onnxsim on a graph without weights, and the proof that it changed nothing but the form."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import onnxsim

from fastvlm_compile.export.errors import ExportError
from validation.metrics import structural_problems, tensor_metrics

SIMPLIFIED_LIMIT = 1e-5
"""Relative L2 between the graph before and after, in float32.

Simplification reorders sums and merges constants, which moves the last bits: 1e-7 to 1e-6 is seen.
A wrong axis, a lost scale or a dropped node moves the first digits.
"""


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold what does not depend on the input, drop what does nothing.

    Raises:
        ExportError: onnxsim refuses the graph or its own check of the result.
    """
    try:
        simplified, ok = onnxsim.simplify(model, check_n=0)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{model.graph.name}: onnxsim failed: {error}") from error
    if not ok:
        raise ExportError(f"{model.graph.name}: onnxsim could not validate its result")
    # It leaves a log of what it did, which names nothing a reader of the bundle needs.
    del simplified.metadata_props[:]
    return simplified  # type: ignore[no-any-return]  # onnxsim is untyped


def check_same_outputs(before: Path, after: Path, feeds: dict[str, np.ndarray]) -> float:
    """Run both graphs in onnxruntime on the same input; return the largest relative L2.

    Raises:
        ExportError: an output's name, shape or values differ, or are not finite.
    """
    expected, found = _run(before, feeds), _run(after, feeds)
    problems = structural_problems(expected, found)
    if problems:
        raise ExportError(f"{after.name}: after simplification {'; '.join(problems)}")
    errors = {
        name: tensor_metrics(reference, found[name]).relative_l2
        for name, reference in expected.items()
    }
    for name, error in errors.items():
        if not error <= SIMPLIFIED_LIMIT:
            raise ExportError(
                f"{after.name}: simplification changed {name} by {error:.2e} (relative L2), "
                f"more than {SIMPLIFIED_LIMIT:.0e}"
            )
    return max(errors.values())


def _run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
