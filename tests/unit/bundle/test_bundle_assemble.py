"""A bundle is what its plan says, in equal bytes wherever and whenever it is built."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_folders import content_of, names_in

from fastvlm_compile.bundle.assemble import BundlePlan, Part, assemble
from fastvlm_compile.bundle.copying import Screen
from fastvlm_compile.bundle.manifest import read_manifest
from fastvlm_compile.bundle.verify import verify_bundle
from fastvlm_compile.errors import BundleError

Changed = Callable[..., BundlePlan]


def test_parts_root_files_card_and_manifest_are_all_there_is(
    plan: BundlePlan, tmp_path: Path
) -> None:
    bundle = assemble(plan, tmp_path / "dist" / "sample")
    assert list(content_of(bundle)) == [
        "README.md",
        "config.json",
        "coreml/fastvithd.mlpackage/Data/weights/weight.bin",
        "coreml/fastvithd.mlpackage/Manifest.json",
        "manifest.json",
        "onnx/decoder_model_merged.onnx",
        "onnx/vision_encoder.onnx",
        "onnx/vision_encoder.onnx_data",
        "reports/parity.md",
        "vocab.json",
    ]
    assert verify_bundle(bundle).ok
    assert names_in(tmp_path / "dist") == ["sample"]


def test_the_manifest_measures_what_each_variant_takes(plan: BundlePlan, tmp_path: Path) -> None:
    manifest = read_manifest(assemble(plan, tmp_path / "sample"))
    onnx, coreml = manifest.variants
    assert onnx.size_bytes == 320 + 5120 + 270
    assert onnx.bits_per_weight == pytest.approx(8 * 5710 / 1000)
    assert coreml.size_bytes == 1003
    assert onnx.gates == plan.variants[0].gates
    assert manifest.provenance == plan.provenance
    assert manifest.contract == plan.contract


def test_two_builds_in_two_folders_give_the_same_bytes(
    plan: BundlePlan, changed: Changed, built: Path, tmp_path: Path
) -> None:
    first = assemble(plan, tmp_path / "one" / "sample")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(built, elsewhere)
    (elsewhere / "parity.md").chmod(0o400)
    parts = tuple(
        Part(path=part.path, source=elsewhere / part.source.relative_to(built))
        for part in reversed(plan.parts)
    )
    umask = os.umask(0o077)
    try:
        second = assemble(changed(parts=parts), tmp_path / "two" / "other")
    finally:
        os.umask(umask)
    assert content_of(first) == content_of(second)
    for name in ("reports", "reports/parity.md", "onnx", "."):
        assert (first / name).stat().st_mode == (second / name).stat().st_mode


def test_the_card_says_how_to_run_it_what_goes_in_and_what_was_checked(
    plan: BundlePlan, tmp_path: Path
) -> None:
    card = (assemble(plan, tmp_path / "sample") / "README.md").read_text()
    assert card.startswith("---\npipeline_tag: image-text-to-text\n")
    assert "fastvlm-compile generate . --image" in card
    assert "128 x 128" in card
    assert "black square" in card
    assert "<|im_start|>user\n<image>\n{prompt}<|im_end|>" in card
    assert "| onnx | fp32 | `onnx` | 0.0 MB | 45.68 | 1 passed, 0 failed |" in card
    assert "[reports/parity.md](reports/parity.md)" in card


def test_the_card_tells_of_further_sizes_where_there_are_any(
    plan: BundlePlan, changed: Changed, tmp_path: Path
) -> None:
    assert "packages take" not in (assemble(plan, tmp_path / "sample") / "README.md").read_text()
    contract = replace(plan.contract, further_coreml_sizes=(320, 512))
    card = (assemble(changed(contract=contract), tmp_path / "more") / "README.md").read_text()
    assert "It becomes 4 tokens. The Core ML packages take 320, 512 too, by function." in card


def test_the_card_of_the_other_contract_says_the_other_thing(
    changed: Changed, contract, tmp_path: Path
) -> None:
    other = replace(contract, fit="crop", image_position="after")
    card = (assemble(changed(contract=other), tmp_path / "sample") / "README.md").read_text()
    assert "middle square is kept" in card
    assert "{prompt}<image><|im_end|>" in card


@pytest.mark.parametrize("name", ["onnx/vision_encoder.onnx", "tokenizer_config.json"])
def test_a_path_of_the_building_machine_is_refused_wherever_it_is(
    name: str, changed: Changed, built: Path, tmp_path: Path
) -> None:
    content = b"x" * 100 + str(built / "objects").encode() + b"y"
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} holds .*a path of this machine"):
        assemble(changed(parts=(Part(path=name, source=secret),), variants=()), tmp_path / "sample")
    with pytest.raises(BundleError, match=f"{name} holds"):
        assemble(changed(root_files={name: content}, parts=(), variants=()), tmp_path / "sample")
    assert not (tmp_path / "sample").exists()


def test_a_path_in_the_recipe_is_refused(plan: BundlePlan, changed: Changed, built: Path) -> None:
    recipe = f"checkpoint:\n  path: {built}/tiny\n"
    leaking = changed(provenance=replace(plan.provenance, recipe=recipe))
    with pytest.raises(BundleError, match=r"README\.md holds"):
        assemble(leaking, built.parent / "sample")


def test_a_vocabulary_may_hold_any_word(changed: Changed, built: Path, tmp_path: Path) -> None:
    content = json.dumps({str(built): 5}).encode()
    bundle = assemble(changed(root_files={"vocab.json": content}), tmp_path / "sample")
    assert (bundle / "vocab.json").read_bytes() == content


def test_the_screen_sees_a_path_that_two_readings_share() -> None:
    screen = Screen.for_paths([Path("/home/somebody")])
    chunks = [b"abc /home/so", b"mebody/x"]
    with pytest.raises(BundleError, match="/home/somebody"):
        list(screen.check("a.txt", chunks))
    assert list(screen.check("a.txt", [b"/home/so", b"me/body"])) == [b"/home/so", b"me/body"]


def test_the_screen_knows_a_home_below_the_root_from_the_name_of_a_node() -> None:
    screen = Screen.for_paths([Path("/root"), Path("/model"), Path("/")])
    node = [b"\x12/model/layers.0/root/MatMul, the /root of it, / and //"]
    assert list(screen.check("a.onnx", node)) == node
    with pytest.raises(BundleError, match="/root/"):
        list(screen.check("a.txt", [b"/root/.cache/huggingface"]))


def test_an_empty_part_is_an_error_and_the_old_bundle_stays(
    plan: BundlePlan, changed: Changed, tmp_path: Path
) -> None:
    bundle = assemble(plan, tmp_path / "sample")
    before = content_of(bundle)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="nothing was built"):
        assemble(changed(parts=(Part(path="onnx", source=tmp_path / "empty"),)), bundle)
    assert content_of(bundle) == before


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a//b", "config.json"])
def test_a_plan_cannot_write_outside_the_bundle_or_one_file_twice(
    path: str, changed: Changed, built: Path, tmp_path: Path
) -> None:
    parts = (Part(path=path, source=built / "parity.md"),)
    with pytest.raises(AssertionError):
        assemble(changed(parts=parts, variants=()), tmp_path / "sample")
