"""One package with its constants compressed, made from the package as it was converted.

Nothing is converted again: the program's messages are edited and a new weight file is written, blob
by blob, so it takes the memory of one tensor. Constants that functions share stay stored once.
"""

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_compile.export.coreml.canonical import canonicalise, read_spec, spec_path
from fastvlm_compile.export.coreml.compress.agreement import Agreement
from fastvlm_compile.export.coreml.compress.blob_writer import BlobWriter, stored_blob
from fastvlm_compile.export.coreml.compress.check import check_compressed
from fastvlm_compile.export.coreml.compress.elements import floating
from fastvlm_compile.export.coreml.compress.encode import check_encodable, encode
from fastvlm_compile.export.coreml.compress.names import Target, Targets
from fastvlm_compile.export.coreml.compress.program import (
    Site,
    StoredOp,
    replace_constants,
    sites,
)
from fastvlm_compile.export.coreml.compress.rows import take_rows
from fastvlm_compile.export.coreml.contract import Precision
from fastvlm_compile.export.coreml.metadata import METADATA_PREFIX
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import Progress
from fastvlm_compile.quantize.scheme import SchemeError, describe
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights

if TYPE_CHECKING:
    from coremltools.proto.Model_pb2 import Model

PRECISIONS = ("float16", "float32")

WEIGHTS = Path("weights", "weight.bin")
WEIGHTS_NAME = "@model_path/weights/weight.bin"
"""What programs call the weight file."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A package to be compressed.

    Attributes:
        source: the package as it was converted.
        targets: constants to replace, and the tensors they hold.
        precision: of the package.
        quantized: the tensors.
        agreement: learns how far each tensor is from the constant that it replaces.
    """

    source: Path
    targets: Targets
    precision: Precision
    quantized: QuantizedWeights
    agreement: Agreement

    def read(self, target: Target) -> QuantizedTensor:
        """The rows of the quantized tensor that a constant holds."""
        tensor = self.quantized.read(target.name)
        try:
            return take_rows(tensor, target.first, target.count or tensor.shape[0])
        except SchemeError as error:
            raise SchemeError(f"{target.name}: {error.message}", hint=error.hint) from None


def package_precision(package: Path) -> Precision:
    """What a package of ours says of itself.

    Raises:
        ExportError: it does not.
    """
    said = read_spec(package).description.metadata.userDefined[METADATA_PREFIX + "precision"]
    if said not in PRECISIONS:
        raise ExportError(f"{package}: says nothing of its precision: {said!r}")
    return "float16" if said == "float16" else "float32"


def compress_package(job: Job, out: Path, progress: Progress) -> Path:
    """Write the compressed package into `out` under its own name, in canonical form, and check it.

    Raises:
        SchemeError: Core ML cannot hold a scheme; the tensor is named.
        ExportError: a tensor has no constant, or one of another shape or type; or what was written
            does not read back as it should.
    """
    package = out / job.source.name
    with tempfile.TemporaryDirectory(dir=out) as folder:
        aside = Path(folder) / job.source.name
        shutil.copytree(job.source, aside, ignore=shutil.ignore_patterns(WEIGHTS.name))
        spec = read_spec(job.source)
        found = sites(spec, job.source.name)
        _check_sites(job, found)
        weights = spec_path(aside).parent / WEIGHTS
        stored = _write_weights(job, found, weights, progress)
        replace_constants(spec, stored, WEIGHTS_NAME)
        _describe(spec, job)
        spec_path(aside).write_bytes(spec.SerializeToString())
        canonicalise(aside)
        progress(len(found), len(found), f"checking {package.name}")
        check_compressed(job.source, aside, job.targets, job.read)
        shutil.move(aside, package)
    return package


def _check_sites(job: Job, found: list[Site]) -> None:
    """Every target is there, stored once, in its shape and type."""
    where = job.source.name
    offsets: dict[str, set[int]] = {}
    for site in found:
        offsets.setdefault(site.name, set()).add(site.offset)
    for stored, target in job.targets.items():
        if stored not in offsets:
            raise ExportError(f"{where}: no constant {stored} for the quantized {target.name}")
        if len(offsets[stored]) > 1:
            raise ExportError(f"{where}: the functions do not share {stored}")
        entry = job.quantized.entries[target.name]
        check_encodable(target.name, entry.scheme, entry.shape)
    for site in found:
        target_or_none = job.targets.get(site.name)
        if site.value.blobFileValue.fileName != WEIGHTS_NAME:
            raise ExportError(f"{where}: {site.name} is in {site.value.blobFileValue.fileName}")
        if target_or_none is not None:
            _check_site(where, site, target_or_none, job)


def _check_site(where: str, site: Site, target: Target, job: Job) -> None:
    shape = job.quantized.entries[target.name].shape
    expected = (target.count or shape[0], *shape[1:])
    if site.shape != expected:
        raise ExportError(
            f"{where}: constant {site.name} is {list(site.shape)}, the rows of {target.name} are "
            f"{list(expected)}"
        )
    if site.element != floating(job.precision).mil:
        raise ExportError(f"{where}: constant {site.name} is stored in {site.element}")


def _write_weights(
    job: Job, found: list[Site], path: Path, progress: Progress
) -> dict[str, tuple[StoredOp, ...]]:
    """The new weight file, in the old one's order; gives the constants' expressions.

    The offsets of constants that stay are changed in place.
    """
    source = spec_path(job.source).parent / WEIGHTS
    dense: dict[int, int] = {}
    stored: dict[str, tuple[StoredOp, ...]] = {}
    with BlobWriter(path) as writer:
        for done, site in enumerate(sorted(found, key=lambda each: (each.offset, each.name))):
            progress(done, len(found), f"compressing {job.source.name}")
            target = job.targets.get(site.name)
            old = site.offset
            if target is None:
                if old not in dense:
                    dense[old] = writer.copy(stored_blob(source, old))
                site.value.blobFileValue.offset = dense[old]
            elif site.name not in stored:
                tensor = job.read(target)
                job.agreement.compare(target.name, tensor, stored_blob(source, old))
                stored[site.name] = _write_tensor(writer, tensor, job.precision)
    return stored


def _write_tensor(
    writer: BlobWriter, tensor: QuantizedTensor, precision: Precision
) -> tuple[StoredOp, ...]:
    written = []
    for op in encode(tensor, precision):
        offsets = {}
        for name, part in op.parts.items():
            element, count = part.element, prod(part.shape)
            offsets[name] = writer.write(
                part.raw, element=element.blob, count=count, bits=element.bits
            )
        written.append(StoredOp(op=op, offsets=offsets))
    return tuple(written)


def _describe(spec: "Model", job: Job) -> None:
    """How many tensors are compressed how, for whoever opens the package."""
    if job.targets:
        schemes = Counter(
            describe(job.quantized.entries[target.name].scheme) for target in job.targets.values()
        )
        text = ", ".join(f"{count} x {scheme}" for scheme, count in sorted(schemes.items()))
        spec.description.metadata.userDefined[METADATA_PREFIX + "weights"] = text
