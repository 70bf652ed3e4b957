"""A Mac validates a bundle without PyTorch and without anything else that only a build needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from validation.runtimes.core_ml_executor import Packages

pytestmark = pytest.mark.xdist_group("coreml-mac")  # one worker exports the packages once

BUILD_ONLY = (
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxsim",
    "skimage",
    "scipy",
    "transformers",
)

_PRELUDE = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BUILD_ONLY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(script: str, *arguments: object) -> str:
    """The script in a Python that has only what `fastvlm-compile[coreml]` installs."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", _PRELUDE + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


MODULES = (
    "coremltools.models.compute_plan",
    "coremltools.models.utils",
    "fastvlm_compile.bundle.validate",
    "fastvlm_compile.bundle.verify",
    "fastvlm_compile.cli",
    "fastvlm_compile.commands.validate",
    "fastvlm_compile.commands.verify",
    "reference.generation",
    "reference.preprocess",
    "reference.prompt",
    "validation.coreml_parity",
    "validation.coreml_units_parity",
    "validation.golden_file",
    "validation.onnx_parity",
    "validation.parity_file",
    "validation.runtimes.compute_plan",
    "validation.runtimes.coreml_runtime",
    "validation.runtimes.coreml_unit_child",
    "validation.runtimes.coreml_unit_open",
    "validation.runtimes.coreml_units",
    "validation.runtimes.onnxruntime_runtime",
)


def test_everything_that_a_mac_imports_does_without_pytorch() -> None:
    script = f"""
import importlib
for name in {MODULES!r}:
    importlib.import_module(name)
print(sorted(set(sys.modules) & set({BUILD_ONLY!r})))
"""
    assert run(script) == "[]"


def test_the_check_sees_an_import_of_pytorch() -> None:
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        run("import validation.runtimes.ml_program_runtime")


def test_a_package_is_described_and_its_cache_layout_read_without_pytorch(
    packages: Packages,
) -> None:
    assert packages.whole is not None
    script = """
from pathlib import Path
from validation.runtimes.core_ml_vision import describe_package
from validation.runtimes.language_layout import read_layout
print(describe_package(Path(sys.argv[1])).kind, len(read_layout(Path(sys.argv[2])).chunks))
"""
    assert run(script, packages.vision, packages.whole.language) == "mlProgram 1"


def test_a_process_of_a_unit_starts_without_pytorch(packages: Packages, tmp_path: Path) -> None:
    """The child's own serving loop over a unit that needs numpy alone."""
    script = """
import dataclasses
from pathlib import Path
from validation.runtimes.coreml_unit_child import Server
from validation.runtimes.coreml_unit_messages import Call, read_arrays, write_arrays
from validation.runtimes.coreml_unit_open import tower_unit
import numpy as np
folder = Path(sys.argv[1])
tower = lambda: lambda inputs: {"image_features": inputs["images"] + 1}
server = Server(tower_unit("numpy", tower, tuple), folder)
write_arrays(folder / "in.npz", {"rows": np.ones((1, 2), np.float32)})
server.serve(Call(name="vision_features", arrays="in.npz", answer="out.npz"))
print(read_arrays(folder / "out.npz")["result"].tolist())
"""
    assert run(script, tmp_path) == "[[2.0, 2.0]]"


def test_without_pytorch_and_without_a_mac_the_reason_names_both(packages: Packages) -> None:
    script = """
from pathlib import Path
from validation.runtimes.core_ml_executor import Packages, open_packages
sys.platform = "linux"
print(open_packages(Packages(vision=Path(sys.argv[1]), whole=None, precision="float16")).reason)
"""
    reason = run(script, packages.vision)
    assert "no Core ML runtime on this platform (linux)" in reason
    assert "torch, which is not installed" in reason
