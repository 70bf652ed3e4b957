"""Writes and reads the directory that `validation.goldens` describes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from validation.goldens import (
    GOLDENS_ARRAYS,
    GOLDENS_JSON,
    SCHEMA_VERSION,
    GoldenCase,
    GoldenContract,
    GoldenError,
    GoldenIndex,
    Goldens,
    SizedImage,
    TaskQuestion,
    describe,
    unusable,
)
from validation.model_shape import ModelShape
from validation.typed_json import read_json, write_json


def write_goldens(
    directory: Path,
    *,
    contract: GoldenContract,
    shape: ModelShape,
    image_ids: tuple[str, ...],
    sized_images: tuple[SizedImage, ...],
    cases: tuple[GoldenCase, ...],
    questions: tuple[TaskQuestion, ...],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Writes both files; equal goldens give equal bytes."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    save_file(contiguous, directory / GOLDENS_ARRAYS)
    index = GoldenIndex(
        contract=contract,
        shape=shape,
        image_ids=image_ids,
        sized_images=sized_images,
        cases=cases,
        questions=questions,
        arrays={name: describe(array) for name, array in contiguous.items()},
    )
    write_json(directory / GOLDENS_JSON, index, schema=SCHEMA_VERSION)


def open_goldens(directory: Path) -> Goldens:
    """Opens a directory of goldens; each array is checked when it is read.

    Raises:
        GoldenError: a file is missing, damaged or of another schema, or the two do not belong
            together.
    """
    index = read_json(directory / GOLDENS_JSON, GoldenIndex, schema=SCHEMA_VERSION, error=unusable)
    path = directory / GOLDENS_ARRAYS
    found = _array_names(path)
    if found != index.arrays.keys():
        odd = sorted(found ^ index.arrays.keys())
        raise unusable(f"{path}: does not belong to {GOLDENS_JSON}: {', '.join(odd[:5])}")
    return Goldens(directory, index)


def _array_names(path: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return set(file.keys())
    except FileNotFoundError:
        raise unusable(f"{path}: there is no such file") from None
    except (OSError, SafetensorError) as error:
        raise unusable(f"{path}: damaged: {error}") from None


__all__ = ["GoldenError", "open_goldens", "write_goldens"]
