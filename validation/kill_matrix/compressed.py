"""Compressed packages to damage, made by coremltools from the projector.

What a compressed package should compute is taken from the dense package that coremltools makes of
it (`decompress_weights`), so that our decompression is not its own judge.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from validation.goldens import Goldens
from validation.kill_matrix.bench import PackageBench
from validation.kill_matrix.draft import (
    Draft,
    Message,
    Site,
    numbers,
    quiet,
    read_draft,
    set_numbers,
)
from validation.kill_matrix.faults_ops import at
from validation.kill_matrix.judge import COMPRESSED
from validation.kill_matrix.mutation import Mutation
from validation.runtimes.core_ml_vision import IMAGE_FEATURES
from validation.runtimes.ml_program.executable import load

SCHEMES = ("palette_4bit", "int8_symmetric", "int8_asymmetric")


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """One compressed package, alone in a folder, and the bench that knows its outputs."""

    folder: Path
    file: str
    bench: PackageBench


def compress(projector: Path, goldens: Goldens, out: Path) -> Iterator[Compressed]:
    """Writes each scheme's package under `out`."""
    inputs = {
        name: {IMAGE_FEATURES: goldens.vision_features(name)[None]}
        for name in goldens.index.image_ids
    }
    shape = next(iter(inputs.values()))[IMAGE_FEATURES].shape
    random = [
        {IMAGE_FEATURES: np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)}
        for seed in range(3)
    ]
    alone = _default_function(projector, out / "alone.mlpackage")
    for scheme in SCHEMES:
        folder = out / scheme
        file = f"{scheme}.mlpackage"
        with quiet():
            _write(alone, scheme, folder / file, out / f"{scheme}_dense.mlpackage")
        dense = load(out / f"{scheme}_dense.mlpackage")
        expected = {name: next(iter(dense.run(each).values())) for name, each in inputs.items()}
        bench = PackageBench(COMPRESSED, inputs, expected, random)
        yield Compressed(folder=folder, file=file, bench=bench)


def _default_function(package: Path, copy: Path) -> Path:
    """A copy that has the default function alone: coremltools compresses nothing else."""
    draft = read_draft(package)
    model = draft.model
    shutil.copytree(package, copy)
    if model.description.functions:
        name = model.description.defaultFunctionName
        (described,) = (each for each in model.description.functions if each.name == name)
        model.description.input.extend(described.input)
        model.description.output.extend(described.output)
        model.description.defaultFunctionName = ""
        del model.description.functions[:]
        for other in set(draft.functions) - {name}:
            del model.mlProgram.functions[other]
        (copy / "Data/com.apple.CoreML/model.mlmodel").write_bytes(model.SerializeToString())
    return copy


def _write(projector: Path, scheme: str, package: Path, dense: Path) -> None:
    import coremltools as ct
    from coremltools.optimize import coreml as cto

    model = ct.models.MLModel(str(projector), skip_model_load=True)
    if scheme == "palette_4bit":
        # Even steps, because k-means of a float32 package needs scikit-learn.
        palette = cto.OpPalettizerConfig(mode="uniform", nbits=4)
        result = cto.palettize_weights(model, cto.OptimizationConfig(palette))
    else:
        mode = "linear_symmetric" if scheme == "int8_symmetric" else "linear"
        linear = cto.OpLinearQuantizerConfig(mode=mode)
        result = cto.linear_quantize_weights(model, cto.OptimizationConfig(linear))
    result.save(str(package))
    cto.decompress_weights(result).save(str(dense))


def compressed_faults(package: Path) -> Iterator[Mutation]:
    """Of the parts that a compressed weight is kept in."""
    draft, file = read_draft(package), package.name
    for site in draft.sites("constexpr_lut_to_dense", "constexpr_blockwise_shift_scale"):
        for parameter in ("lut", "indices", "data", "scale", "offset"):
            value = draft.parameter(site, parameter)
            if value is not None:
                for kind, rewrite in _REWRITES[parameter].items():
                    yield at(site, file, kind, "", _rewriting(parameter, rewrite))


def _rewriting(
    parameter: str, rewrite: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Draft, Site], None]:
    def change(draft: Draft, site: Site) -> None:
        value = draft.parameter(site, parameter)
        assert value is not None
        if value.HasField("blobFileValue"):
            array = draft.array(value)
            array[...] = rewrite(array.copy())
        else:
            _rewrite_immediate(value, rewrite)

    return change


def _rewrite_immediate(value: Message, rewrite: Callable[[np.ndarray], np.ndarray]) -> None:
    old = np.array(numbers(value), dtype=np.float32)
    set_numbers(value, [float(each) for each in rewrite(old).ravel()])


def _one_changed(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    flat[len(flat) // 3] *= array.dtype.type(1.5)
    return array


def _one_up(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    flat[len(flat) // 3] ^= array.dtype.type(0x40)
    return array


def _rolled(array: np.ndarray) -> np.ndarray:
    return np.roll(array.reshape(-1), 1).reshape(array.shape)


def _nibbles_exchanged(array: np.ndarray) -> np.ndarray:
    return ((array >> 4) | (array << 4)).astype(array.dtype)


_REWRITES: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "lut": {
        "palette entry wrong": _one_changed,
        "palette reversed": lambda a: a.reshape(-1)[::-1].reshape(a.shape).copy(),
        "palette rolled by one": _rolled,
    },
    "indices": {"index bits in the other order": _nibbles_exchanged, "index wrong": _one_up},
    "data": {"quantized weight wrong": _one_up, "quantized weights rolled by one": _rolled},
    "scale": {
        "scale of one channel wrong": _one_changed,
        "all scales x1.02": lambda a: a * a.dtype.type(1.02),
        "scales of other channels": _rolled,
    },
    "offset": {
        "zero points off by one": lambda a: a + a.dtype.type(1),
        "zero points of other channels": _rolled,
        "zero points dropped": np.zeros_like,
    },
}
"""Parameter -> kind of fault -> new elements."""
