"""What of a quantization is done already, so that an interrupted one goes on where it was.

Beside each finished tensor a record says how it was made: an index of one entry, in a folder that
is named by the digest of all that the result depends on. A record is written after its tensor and
removed before a tensor is written over, so that it never speaks of other codes than those there.
Where the records have a folder of their own, the finished directory is another one, to which the
tensors are linked: until that is safe, they can be taken again.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from fastvlm_compile.durable import sync_file
from fastvlm_compile.kept import link_file
from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.scheme import Shape
from fastvlm_compile.quantize.tensor import QuantizedTensor
from fastvlm_compile.quantize.weights_file import (
    INDEX,
    QuantizedEntry,
    QuantizedFileError,
    QuantizedWeights,
    file_name,
    open_quantized,
    write_index,
    write_tensor,
)

_RECORDS = ".records"


class Ledger:
    """The directory that a quantization fills; `entries` has what is in its place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: dict[str, QuantizedEntry] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)  # it is true of a finished directory only

    def take(self, name: str, shape: Shape, choice: Choice, context: str) -> bool:
        """Whether the tensor is there whole, of this choice and context; then it is kept.

        Args:
            name: canonical.
            shape: of the weight.
            choice: what was chosen now.
            context: digest of what the result depends on besides.
        """
        try:
            entry = open_quantized(self._record(name, context)).entries[name]
            if (entry.scheme, entry.method, entry.shape) != (choice.scheme, choice.method, shape):
                return False
            QuantizedWeights(entries={name: entry}, folders={name: self._folder}).read(name)
        except (QuantizedFileError, KeyError):
            return False
        self.entries[name] = entry
        return True

    def put(
        self, name: str, tensor: QuantizedTensor, entry: QuantizedEntry, *, context: str
    ) -> None:
        """Write a tensor, then its record: after a power cut only where the tensor is."""
        for stale in (self._folder / _RECORDS).glob(f"*/{name}"):
            shutil.rmtree(stale)
        write_tensor(self._folder, name, tensor)
        sync_file(self._folder / file_name(name))
        record = self._record(name, context)
        record.mkdir(parents=True)
        write_index(record, {name: entry})
        self.entries[name] = entry

    def read(self, name: str) -> QuantizedTensor:
        """A tensor that is in its place."""
        folders = {name: self._folder}
        return QuantizedWeights(entries=self.entries, folders=folders).read(name)

    def finish(self, out: Path) -> Mapping[str, QuantizedEntry]:
        """Make `out` the finished directory; where it is the ledger's own, the records go."""
        if out != self._folder:
            for name in self.entries:
                link_file(self._folder / file_name(name), out / file_name(name))
            write_index(out, self.entries)
            return self.entries
        wanted = {file_name(name) for name in self.entries} | {_RECORDS}
        for path in self._folder.iterdir():
            if path.name not in wanted:
                path.unlink()
        write_index(self._folder, self.entries)
        shutil.rmtree(self._folder / _RECORDS, ignore_errors=True)
        return self.entries

    def _record(self, name: str, context: str) -> Path:
        return self._folder / _RECORDS / context / name
