"""What of a bundle is to be uploaded: all of it, once every byte of it was checked."""

from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.bundle.manifest import MANIFEST_NAME, parse_manifest
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.errors import VerificationError
from fastvlm_compile.tree_digest import FileRecord, sha256_of


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A whole bundle."""

    bundle: Path
    name: str
    files: tuple[FileRecord, ...]
    """Sorted by path, the manifest among them."""

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


def upload_of(bundle: Path) -> Upload:
    """Verify a bundle and list its files.

    Raises:
        BundleError: there is no such folder.
        VerificationError: it is not what its manifest says.
    """
    found = verify_bundle(bundle)
    if not found.ok:
        first, count = found.problems[0], len(found.problems)
        raise VerificationError(
            f"{bundle}: {count} {'problem' if count == 1 else 'problems'} found, nothing was "
            f"uploaded: {first.kind}: {first.path}: {first.detail}",
            hint="`fastvlm-compile verify` lists them all; build the bundle again",
        )
    path = bundle / MANIFEST_NAME
    content = path.read_bytes()
    manifest = parse_manifest(content, source=str(path))
    itself = FileRecord(path=MANIFEST_NAME, size_bytes=len(content), sha256=sha256_of(path))
    files = sorted((*manifest.files, itself), key=lambda file: file.path)
    return Upload(bundle=bundle, name=manifest.name, files=tuple(files))
