"""`verify` finds any single change of a bundle, and says all that is wrong with it."""

import os
from pathlib import Path

import pytest
from bundle_folders import content_of

from fastvlm_compile.bundle.assemble import BundlePlan, assemble
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.errors import BundleError

FILES = [
    "README.md",
    "config.json",
    "coreml/fastvithd.mlpackage/Data/weights/weight.bin",
    "manifest.json",
    "onnx/vision_encoder.onnx_data",
]


@pytest.fixture
def bundle(plan: BundlePlan, tmp_path: Path) -> Path:
    return assemble(plan, tmp_path / "sample")


def found(bundle: Path) -> list[tuple[str, str]]:
    return [(problem.kind, problem.path) for problem in verify_bundle(bundle).problems]


def test_an_untouched_bundle_is_whole(bundle: Path) -> None:
    result = verify_bundle(bundle)
    assert result.ok
    assert result.name == "sample"
    assert result.num_files == len(content_of(bundle))


def test_a_copy_of_a_bundle_is_whole_and_so_is_a_link_to_it(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "link").symlink_to(bundle)
    assert verify_bundle(tmp_path / "copy").ok
    assert verify_bundle(tmp_path / "link").ok


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("bit", [0, 7])
def test_one_flipped_bit_in_any_file_is_found(
    name: str, where: float, bit: int, bundle: Path
) -> None:
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    assert found(bundle) == [("changed", name)]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_an_extended_and_an_emptied_file_are_found(name: str, bundle: Path) -> None:
    content = (bundle / name).read_bytes()
    for damaged in (content[:-1], content + b"\0", b""):
        (bundle / name).write_bytes(damaged)
        assert found(bundle) == [("changed", name)]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(name: str, bundle: Path) -> None:
    (bundle / name).unlink()
    assert ("missing", name) in found(bundle)


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "onnx/extra.onnx", "new/folder/file"])
def test_an_added_file_is_found(name: str, bundle: Path) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).touch()
    assert ("added", name) in found(bundle)


def test_an_added_empty_folder_is_found(bundle: Path) -> None:
    (bundle / "onnx" / "empty").mkdir()
    assert found(bundle) == [("added", "onnx/empty")]


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_file_that_became_a_link_to_the_same_bytes_is_found(
    name: str, bundle: Path, tmp_path: Path
) -> None:
    (bundle / name).rename(tmp_path / "outside")
    (bundle / name).symlink_to(tmp_path / "outside")
    assert found(bundle) == [("not a file", name)]


def test_added_links_and_pipes_are_found_and_not_opened(bundle: Path) -> None:
    (bundle / "loop").symlink_to(bundle)
    (bundle / "dangling").symlink_to(bundle / "nowhere")
    os.mkfifo(bundle / "pipe")
    assert found(bundle) == [("added", "dangling"), ("added", "loop"), ("added", "pipe")]


def test_a_folder_that_became_a_link_is_found(bundle: Path, tmp_path: Path) -> None:
    (bundle / "reports").rename(tmp_path / "outside")
    (bundle / "reports").symlink_to(tmp_path / "outside")
    assert set(found(bundle)) == {("added", "reports"), ("missing", "reports/parity.md")}


def test_a_file_that_became_a_folder_is_found(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    (bundle / "config.json").mkdir()
    assert found(bundle) == [("not a file", "config.json")]


def test_all_problems_are_told_at_once(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    (bundle / "extra").touch()
    (bundle / "reports/parity.md").write_bytes(b"all is ill.\n")
    assert found(bundle) == [
        ("missing", "config.json"),
        ("added", "extra"),
        ("changed", "reports/parity.md"),
    ]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such bundle"):
        verify_bundle(tmp_path / "absent")
