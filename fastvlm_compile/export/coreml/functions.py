"""Several functions in one package, and what they share stored once."""

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fastvlm_compile.export.coreml.canonical import canonicalise, read_spec, spec_path
from fastvlm_compile.export.coreml.merge import MAIN, merge
from fastvlm_compile.export.coreml.metadata import IMAGE_SIZES
from fastvlm_compile.export.coreml.quiet import quiet_coremltools

if TYPE_CHECKING:
    from coremltools.models import MLModel


def by_size(image_size: int, further: tuple[int, ...]) -> dict[str, int]:
    """Functions of a package for images of several sizes, and the size of each."""
    return {MAIN: image_size} | {f"size_{size}": size for size in further}


def write_sizes(
    image_size: int, further: tuple[int, ...], convert: Callable[[int], "MLModel"], package: Path
) -> None:
    """Write a package for images of several sizes, in canonical form.

    Each size is a function of fixed shapes over the same weights. Enumerated shapes of one function
    were tried: they too store the weights once, but reshape by what `shape`, `gather` and `concat`
    find out at run time, inside every attention, and the input of Apple's contract is no longer of
    one fixed shape. With functions, the one that is there without further sizes stays as it is, op
    by op, and is the default; Core ML compiles the functions that are asked for.

    Args:
        image_size: of the function `main`.
        further: one more function for each; without any the package is what it is without
            functions, byte for byte.
        convert: makes the package of one size.
        package: where to; its folder also holds the functions for a while.
    """
    if not further:
        with quiet_coremltools():
            convert(image_size).save(str(package))
        canonicalise(package)
        return
    sizes = by_size(image_size, further)
    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        parts = {name: Path(folder) / f"{name}.mlpackage" for name in sizes}
        for name, path in parts.items():
            model = convert(sizes[name])
            with quiet_coremltools():
                model.save(str(path))
            del model
            gc.collect()  # the converter's programs refer to themselves in circles
        merge(parts, package, default=MAIN)
        metadata = read_spec(parts[MAIN]).description.metadata
    spec = read_spec(package)
    spec.description.metadata.CopyFrom(metadata)  # merging drops it
    spec.description.metadata.userDefined[IMAGE_SIZES] = ",".join(map(str, sizes.values()))
    spec_path(package).write_bytes(spec.SerializeToString())
    canonicalise(package)
