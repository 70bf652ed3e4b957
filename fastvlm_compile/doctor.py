"""What is installed, and what each missing part costs."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Literal

VersionOf = Callable[[str], str | None]

_READ = ("numpy", "pillow", "tokenizers")
_CHECKPOINT = ("numpy", "safetensors", "ml-dtypes", "tokenizers", "torch")
_MLX = ("mlx", "mlx-lm")
_DASK = ("distributed", "fsspec")
_HUB = ("huggingface_hub",)
_BUILD = ("pyyaml", "pillow", "scikit-image", *_CHECKPOINT)

# What a user may want -> the distributions it takes. Kept in the order of the README.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "verify": (),
    "generate --runtime onnxruntime": (*_READ, "onnxruntime"),
    "generate --runtime torch": (*_READ, "safetensors", "torch"),
    "generate --runtime ml_program": (*_READ, "torch"),
    "generate --runtime mlx": (*_READ, "safetensors", *_MLX),
    "validate, target onnx": (*_READ, "safetensors", "onnxruntime"),
    "validate, target coreml": (*_READ, "safetensors", "coremltools"),
    "validate, target mlx": (*_READ, "safetensors", *_MLX),
    "push": _HUB,
    "coreml run, inspect, diff": ("numpy", "torch"),
    "checkpoint inspect": ("numpy", "safetensors"),
    "checkpoint convert, synthesize": _CHECKPOINT,
    "build, target onnx": (*_BUILD, "onnx", "onnx-ir", "onnxscript", "onnxsim", "onnxruntime"),
    "build, target coreml": (*_BUILD, "coremltools"),
    "build, target mlx": (*_BUILD, *_MLX),
    "build, target torch": _BUILD,
    "build, quantized variants": (*_BUILD, "numba"),
    "build --scheduler, on many machines": (*_BUILD, *_DASK),
    "build --store URL": (*_BUILD, "fsspec"),
}

# Installed with the package itself; the rest comes with the extras `build`, `mlx`, `dask`, `hub`.
_BASE = frozenset(
    {
        "click",
        "numpy",
        "pillow",
        "pyyaml",
        "safetensors",
        "ml-dtypes",
        "tokenizers",
        "onnxruntime",
    }
)
ML_PROGRAM = "run Core ML packages in the ML Program executor"
CORE_ML = "run Core ML packages in Core ML (generate --runtime coreml)"


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One thing a user may want to do."""

    name: str
    status: Literal["works", "missing", "not available"]
    reason: str = ""
    """Why it does not work."""
    cure: str = ""
    """What would make it work; empty where nothing on this machine would."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All that `doctor` found out about the installation."""

    versions: Mapping[str, str | None]
    """Distribution -> version, None for a missing one."""
    capabilities: tuple[Capability, ...]

    @property
    def useful(self) -> bool:
        """Whether anything works that needs a library at all."""
        return any(c.status == "works" and NEEDS.get(c.name) for c in self.capabilities)


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is missing. Imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def examine(
    version_of: VersionOf = installed_version, *, platform: str = sys.platform
) -> Examination:
    """Looks up every distribution and judges every capability.

    Args:
        version_of: gives the version of a distribution, None for a missing one.
        platform: as `sys.platform`.
    """
    names = sorted({"click", "coremltools", *(name for needs in NEEDS.values() for name in needs)})
    versions = {name: version_of(name) for name in names}
    found = {name for name, version in versions.items() if version is not None}
    capabilities = [_judge(name, needs, found) for name, needs in NEEDS.items()]
    return Examination(
        versions=versions,
        capabilities=(
            *capabilities,
            _ml_program(found, platform=platform),
            _core_ml(found, platform=platform),
        ),
    )


def _judge(name: str, needs: tuple[str, ...], found: set[str]) -> Capability:
    missing = [need for need in needs if need not in found]
    if not missing:
        return Capability(name=name, status="works")
    extra = "" if _BASE.issuperset(missing) else f"[{_extras(missing)}]"
    return Capability(
        name=name,
        status="missing",
        reason=f"needs {', '.join(missing)}",
        cure=f"pip install 'fastvlm-compile{extra}'",
    )


def _extras(missing: list[str]) -> str:
    """The extras that bring what is missing."""
    of_others = (*_MLX, *_DASK, *_HUB, *_BASE)
    extras = {
        "build": [name for name in missing if name not in of_others],
        "mlx": [name for name in missing if name in _MLX],
        "dask": [name for name in missing if name in _DASK],
        "hub": [name for name in missing if name in _HUB],
    }
    return ",".join(extra for extra, names in extras.items() if names)


def _ml_program(found: set[str], *, platform: str) -> Capability:
    """Without Core ML and without PyTorch nothing says what packages compute."""
    able = _judge(ML_PROGRAM, ("torch", "numpy"), found)
    if able.status == "works" or platform == "darwin":
        return able
    cost = f"{able.reason}; without it Core ML packages are `not run` in every report"
    return replace(able, reason=cost)


def _core_ml(found: set[str], *, platform: str) -> Capability:
    if platform != "darwin":
        reason = "needs macOS; here packages run in the ML Program executor, which is not Core ML"
        return Capability(name=CORE_ML, status="not available", reason=reason)
    return _judge(CORE_ML, ("coremltools",), found)
