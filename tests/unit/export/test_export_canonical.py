"""A package's canonical digest depends on what it says and on nothing else."""

import json
import shutil
import uuid
from pathlib import Path

import pytest

from fastvlm_compile.export.coreml.canonical import (
    canonical_digest,
    canonicalise,
    read_spec,
    spec_path,
)
from fastvlm_compile.export.coreml.check import operations
from fastvlm_compile.export.errors import ExportError


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "another-name.mlpackage"
    shutil.copytree(exported / "float16" / "fastvithd.mlpackage", copy)
    return copy


@pytest.fixture
def digest(exported: Path) -> str:
    return canonical_digest(exported / "float16" / "fastvithd.mlpackage")


def as_coremltools_saves_it(package: Path) -> None:
    """Random identifiers, a date, another build of torch, a debugger's file, other permissions."""
    manifest = json.loads((package / "Manifest.json").read_text())
    names = {old: str(uuid.uuid4()) for old in manifest["itemInfoEntries"]}
    manifest["itemInfoEntries"] = {
        names[old]: item for old, item in reversed(manifest["itemInfoEntries"].items())
    }
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    (package / "Manifest.json").write_text(json.dumps(manifest))
    spec = read_spec(package)
    prefix = "com.github.apple.coremltools."
    spec.description.metadata.userDefined[prefix + "conversion_date"] = "2001-01-01"
    spec.description.metadata.userDefined[prefix + "source"] = "torch==9.9.9"
    entry = spec.mlProgram.attributes["buildInfo"].immediateValue.dictionary.values.add()
    entry.key.immediateValue.tensor.strings.values.append("coremltools-component-torch")
    entry.value.immediateValue.tensor.strings.values.append("9.9.9")
    spec_path(package).write_bytes(spec.SerializeToString())
    (package / "executorch_debug_handle_mapping.json").write_text("{}")
    spec_path(package).chmod(0o600)


def test_identifiers_dates_and_debug_files_do_not_count_and_are_removed(
    package: Path, exported: Path, digest: str
) -> None:
    as_coremltools_saves_it(package)
    assert canonical_digest(package) == digest
    canonicalise(package)
    assert canonical_digest(package) == digest
    original = exported / "float16" / "fastvithd.mlpackage"
    files = {p.relative_to(original) for p in original.rglob("*") if p.is_file()}
    assert files == {p.relative_to(package) for p in package.rglob("*") if p.is_file()}
    assert all((package / f).read_bytes() == (original / f).read_bytes() for f in files)
    assert spec_path(package).stat().st_mode & 0o777 == 0o644


def test_canonicalising_twice_changes_nothing_more(package: Path) -> None:
    before = {p: p.read_bytes() for p in package.rglob("*") if p.is_file()}
    canonicalise(package)
    assert before == {p: p.read_bytes() for p in package.rglob("*") if p.is_file()}


def test_every_real_change_changes_the_digest(package: Path, digest: str) -> None:
    assert canonical_digest(package) == digest
    weights = spec_path(package).parent / "weights" / "weight.bin"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed_weight = canonical_digest(package)
    content[-1] ^= 1
    weights.write_bytes(content)
    spec = read_spec(package)
    next(op for op in operations(spec) if op.type == "gelu").type = "relu"
    spec_path(package).write_bytes(spec.SerializeToString())
    changed_op = canonical_digest(package)
    (package / "extra.txt").write_text("more")
    added_file = canonical_digest(package)
    assert len({digest, changed_weight, changed_op, added_file}) == 4


@pytest.mark.parametrize("content", [None, "not json", "{}", '{"rootModelIdentifier": "x"}'])
def test_a_package_without_a_manifest_is_refused(package: Path, content: str | None) -> None:
    if content is None:
        (package / "Manifest.json").unlink()
    else:
        (package / "Manifest.json").write_text(content)
    with pytest.raises(ExportError, match=r"Manifest\.json"):
        canonical_digest(package)
