"""What conversion does to take little memory changes no byte of a package."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from coreml_language_helpers import decoder_config, open_decoder, random_rows
from torch import Tensor, nn

from fastvlm_compile.export.coreml.canonical import canonical_digest, canonicalise, read_spec
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.export.coreml.language.convert import FUNCTIONS, convert_function
from fastvlm_compile.export.coreml.language.export import export_decoder
from fastvlm_compile.export.coreml.language.module import ChunkFunction, load_weights
from fastvlm_compile.export.coreml.language.plan import split
from fastvlm_compile.export.coreml.merge import merge
from fastvlm_compile.export.coreml.quiet import quiet_coremltools
from fastvlm_compile.kept import KeptWork
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint
from validation.runtimes.chunked_decoder import ChunkedDecoder
from validation.runtimes.language_layout import read_layout
from validation.runtimes.ml_program.executable import load
from validation.runtimes.ml_program_runtime import ExecutedChunk
from validation.runtimes.package_peaks import PackagePeaks, Peak

if TYPE_CHECKING:
    from coremltools import PassPipeline

with quiet_coremltools():
    import coremltools as ct
    from coremltools.models.utils import MultiFunctionDescriptor, save_multifunction

    from fastvlm_compile.export.coreml.half_precision import with_lean_cast


def test_a_chunk_converted_in_a_process_of_its_own_has_the_same_bytes(
    checkpoint: Checkpoint, float16: Path, tmp_path: Path
) -> None:
    config = decoder_config(checkpoint, precision="float16")
    export_decoder(config, checkpoint, tmp_path, silent, aside_from_bytes=0)
    files = sorted(path.relative_to(float16) for path in float16.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / file).read_bytes() == (float16 / file).read_bytes(), file


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_merging_gives_what_coremltools_gives_byte_for_byte(
    checkpoint: Checkpoint, precision: Precision, tmp_path: Path
) -> None:
    config = decoder_config(checkpoint, precision=precision)
    (chunk,) = split(config)
    weights = load_weights(chunk, config, checkpoint, tmp_path / "weights")
    parts = {}
    descriptor = MultiFunctionDescriptor()
    for name in FUNCTIONS:
        module = ChunkFunction(weights, chunk, config, name).eval()
        parts[str(name)] = tmp_path / f"{name}.mlpackage"
        with quiet_coremltools():
            convert_function(module, chunk, config, name).save(str(parts[name]))
            descriptor.add_function(str(parts[name]), "main", name)
    descriptor.default_function_name = "decode"
    ours, theirs = tmp_path / "ours.mlpackage", tmp_path / "theirs.mlpackage"
    merge(parts, ours, default="decode")
    with quiet_coremltools():
        save_multifunction(descriptor, str(theirs))
    for package in (ours, theirs):
        canonicalise(package)
    assert read_spec(ours) == read_spec(theirs)
    assert canonical_digest(ours) == canonical_digest(theirs)


class Scaled(nn.Module):
    """Two matrices, one of which holds a value of our choice, and a few small constants."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(16, 24), nn.Linear(24, 16)
        self.small = nn.Parameter(torch.tensor([1e-9, 0.0, -1e-9, 1.0] * 4))
        with torch.no_grad():
            self.first.weight[3, 5] = largest

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.first(x))) * self.small
        return y


@pytest.mark.parametrize("largest", [1.0, 65504.0, -65505.0, 1e30, float("inf")])
def test_the_cast_to_float16_is_coremltools_own(largest: float, tmp_path: Path) -> None:
    """Also where a value overflows, which keeps its op in float32, or counts as infinite."""
    found = []
    for name in ("theirs", "ours"):
        pipeline = ct.PassPipeline()
        if name == "ours":
            pipeline = with_lean_cast(pipeline, "float16")
        package = tmp_path / f"{name}.mlpackage"
        save_converted(Scaled(largest), pipeline, package)
        found.append(canonical_digest(package))
    assert found[0] == found[1]


def save_converted(module: nn.Module, pipeline: "PassPipeline", package: Path) -> None:
    with quiet_coremltools(), torch.no_grad():
        traced: Any = torch.jit.trace(module.eval(), torch.zeros(2, 16))
        ct.convert(
            traced,
            inputs=[ct.TensorType("x", shape=(2, 16), dtype=np.float32)],
            minimum_deployment_target=ct.target.iOS18,
            pass_pipeline=pipeline,
            skip_model_load=True,
        ).save(str(package))


def test_chunk_by_chunk_is_the_same_as_call_by_call(pieces: Path) -> None:
    """Bit for bit: a prompt of whole and padded prefill chunks, then single rows."""
    decoder = open_decoder(pieces)
    rows = random_rows(24)
    parts = [rows[:5], rows[5:21], rows[21:22], rows[22:23], rows[23:]]
    memory = decoder.new_memory()
    expected = np.stack([decoder.append(part, memory) for part in parts])
    assert np.array_equal(decoder.append_all([parts, parts[:2]])[0], expected)


def test_a_killed_run_goes_on_with_the_next_package(pieces: Path, tmp_path: Path) -> None:
    rows = random_rows(24)
    parts = [rows[:5], rows[5:21], rows[21:22]]
    expected, noticed = _watched(pieces, [parts], KeptWork(folder=tmp_path / "whole", worth_s=0))
    kept = KeptWork(folder=tmp_path / "kept", worth_s=0)
    with pytest.raises(KeyboardInterrupt):
        _watched(pieces, [parts], kept, die_in=2)
    found, seen = _watched(pieces, [parts], kept, refuse=range(2))
    assert np.array_equal(found[0], expected[0])
    assert seen == noticed
    assert seen


def _raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: object) -> None:
        raise error

    return run


def _watched(
    pieces: Path,
    sequences: list[list[np.ndarray]],
    kept: KeptWork,
    *,
    die_in: int = -1,
    refuse: range = range(0),
) -> tuple[list[np.ndarray], list[tuple[str, Peak]]]:
    """The logits, and the peaks inside.

    Args:
        pieces: the packages.
        sequences: what they take in.
        kept: of this run and of those before it.
        die_in: the number of the package whose first run ends everything.
        refuse: the numbers of packages that must not run.
    """
    peaks, layout = PackagePeaks(), read_layout(pieces)
    programs = []
    for number, chunk in enumerate(layout.chunks):
        package = pieces / chunk.package
        program = ExecutedChunk(load(package, function="prefill"), "none", peaks.watch_of(package))
        if number == die_in:
            program.run = _raising(KeyboardInterrupt())
        elif number in refuse:
            program.run = _raising(AssertionError("run again"))
        programs.append(program)
    found = ChunkedDecoder(layout, programs).append_all(sequences, kept=kept)
    return found, list(peaks.of(""))
