"""Constants of a program's functions, put into a weight file: equal ones are stored once."""

import hashlib
from dataclasses import dataclass

from fastvlm_compile.export.coreml.compress.blob_writer import BlobWriter, Bytes, StoredBlob
from fastvlm_compile.export.coreml.compress.elements import Element
from fastvlm_compile.export.coreml.compress.program import Site


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What makes two constants one."""

    shape: tuple[int, ...]
    element: int
    sha256: bytes


class SharedConstants:
    """Appends constants to a weight file, and points the program at them.

    Args:
        writer: of the file.
    """

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._written: dict[_Content, int] = {}

    def copy(self, site: Site, blob: StoredBlob) -> None:
        """Have a constant hold what another file's blob does.

        Raises:
            ExportError: that file is damaged.
        """
        content = _Content(shape=site.shape, element=blob.element, sha256=_digest(blob))
        if content not in self._written:
            self._written[content] = self._writer.copy(blob)
        site.value.blobFileValue.offset = self._written[content]

    def write(self, site: Site, raw: Bytes, element: Element) -> None:
        """Have a constant hold these elements, packed."""
        digest = hashlib.sha256(raw.data).digest()
        content = _Content(shape=site.shape, element=element.blob, sha256=digest)
        if content not in self._written:
            count = raw.nbytes * 8 // element.bits
            self._written[content] = self._writer.write(
                raw, element=element.blob, count=count, bits=element.bits
            )
        site.value.blobFileValue.offset = self._written[content]


def _digest(blob: StoredBlob) -> bytes:
    digest = hashlib.sha256()
    for piece in blob.pieces():
        digest.update(piece)
    return digest.digest()
