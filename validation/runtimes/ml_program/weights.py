"""All weight files of a package, opened when first needed."""

from pathlib import Path

import numpy as np

from validation.runtimes.ml_program.blob import Record, WeightFile
from validation.runtimes.ml_program.errors import PackageError
from validation.runtimes.ml_program.package import Package
from validation.runtimes.ml_program.program import BlobValue, Immediate


class Weights:
    """Reads the constants of one package."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._files: dict[str, WeightFile] = {}

    @property
    def path(self) -> Path:
        """The package these weights belong to."""
        return self._package.path

    def check(self, value: BlobValue) -> Record:
        """The record of a stored constant, checked against its declaration.

        Raises:
            PackageError: the file, the record or its fit with the program is not sound.
        """
        return self._file(value.file_name).check(value.offset, value.type)

    def array(self, value: Immediate | BlobValue) -> np.ndarray:
        """A constant's elements in its declared shape; sub-byte integers one per byte.

        Raises:
            PackageError: it cannot be read.
        """
        if isinstance(value, BlobValue):
            return self._file(value.file_name).array(value.offset, value.type)
        if value.data is None:
            raise PackageError(f"{self.path}: a constant of type {value.type} is not numeric")
        return value.data

    def _file(self, name: str) -> WeightFile:
        if name not in self._files:
            self._files[name] = WeightFile(self._package.weight_file(name))
        return self._files[name]
