"""Every kind of artifact compressed, from the folder that a float build wrote.

Each function takes what the stage of that kind wrote, and writes the same files: packages under
their own names, `language.json` as it was. Tensors that `quantized` does not name stay as they are.
"""

import shutil
from pathlib import Path

from fastvlm_compile.export.coreml.compress.agreement import Agreement
from fastvlm_compile.export.coreml.compress.names import (
    LAYERS_PREFIX,
    Target,
    Targets,
    head_target,
    layer_targets,
    projector_targets,
    vision_targets,
)
from fastvlm_compile.export.coreml.compress.package import (
    Job,
    compress_package,
    package_precision,
)
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.export.coreml.convert import PACKAGE as VISION_PACKAGE
from fastvlm_compile.export.coreml.language.description import FILE as LANGUAGE_FILE
from fastvlm_compile.export.coreml.projector import PACKAGE as PROJECTOR_PACKAGE
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.kept import NOTHING_KEPT, Kept
from validation.runtimes.language_layout import ChunkLayout, read_layout


def compress_vision(
    folder: Path, quantized: QuantizedWeights, out: Path, progress: Progress
) -> Path:
    """`fastvithd.mlpackage` of `folder` with the tower's quantized tensors.

    Raises:
        SchemeError: Core ML cannot hold a scheme; the tensor is named.
        ExportError: the package and the tensors do not fit together; see `compress_package`.
    """
    source = folder / VISION_PACKAGE
    targets = vision_targets(quantized.entries, package_precision(source))
    return _compress(_job(source, targets, quantized, Agreement()), out, progress)


def compress_projector(
    folder: Path, quantized: QuantizedWeights, out: Path, progress: Progress
) -> Path:
    """`projector.mlpackage` of `folder` with the projector's quantized tensors.

    Raises:
        SchemeError, ExportError: as `compress_vision`.
    """
    source = folder / PROJECTOR_PACKAGE
    targets = projector_targets(quantized.entries, package_precision(source))
    return _compress(_job(source, targets, quantized, Agreement()), out, progress)


def compress_decoder(
    folder: Path,
    quantized: QuantizedWeights,
    out: Path,
    progress: Progress,
    *,
    tied: bool,
    kept: Kept = NOTHING_KEPT,
) -> None:
    """`decoder*.mlpackage` of `folder` with the quantized layers and head, and `language.json`.

    Args:
        folder: what the decoder's stage wrote.
        quantized: the tensors.
        out: where to.
        progress: told of each package.
        tied: whether the head is the embedding, so that its tensor is the embedding's.
        kept: the packages that an earlier run of the same has left.

    Raises:
        SchemeError, ExportError: as `compress_vision`; also where a group of channels that share a
            table is cut by the border of two packages.
    """
    layout = read_layout(folder)
    agreement = Agreement()
    placed: set[str] = set()
    for chunk in layout.chunks:
        source = folder / chunk.package
        targets = _chunk_targets(chunk, quantized, package_precision(source), tied=tied)
        placed |= {target.name for target in targets.values()}
        job = _job(source, targets, quantized, Agreement())

        def make(aside: Path, job: Job = job) -> str:
            compress_package(job, aside, progress)
            return job.agreement.to_json()

        agreement.learn(kept.files(chunk.package, make, out))
    _check_placed(folder, placed, quantized, tied=tied)
    agreement.check(quantized.entries)
    shutil.copyfile(folder / LANGUAGE_FILE, out / LANGUAGE_FILE)


def _chunk_targets(
    chunk: ChunkLayout, quantized: QuantizedWeights, precision: Precision, *, tied: bool
) -> Targets:
    targets: dict[str, Target] = {}
    if chunk.layers is not None:
        for layer in range(chunk.layers.first, chunk.layers.end):
            targets |= layer_targets(quantized.entries, layer, precision)
    if chunk.vocabulary is not None:
        rows = chunk.vocabulary
        head = head_target(tied=tied, first=rows.first, count=rows.count, precision=precision)
        targets |= {key: each for key, each in head.items() if each.name in quantized.entries}
    return targets


def _check_placed(
    folder: Path, placed: set[str], quantized: QuantizedWeights, *, tied: bool
) -> None:
    """Every quantized tensor of the decoder is in a package."""
    heads = {LM_HEAD, EMBED_TOKENS} if tied else {LM_HEAD}
    wanted = {name for name in quantized.entries if name.startswith(LAYERS_PREFIX) or name in heads}
    if missing := sorted(wanted - placed):
        raise ExportError(f"{folder}: no package has a place for {', '.join(missing)}")


def _compress(job: Job, out: Path, progress: Progress) -> Path:
    package = compress_package(job, out, progress)
    job.agreement.check(job.quantized.entries)
    return package


def _job(source: Path, targets: Targets, quantized: QuantizedWeights, agreement: Agreement) -> Job:
    return Job(
        source=source,
        targets=targets,
        precision=package_precision(source),
        quantized=quantized,
        agreement=agreement,
    )
