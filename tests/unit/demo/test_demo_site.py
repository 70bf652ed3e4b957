"""The page gets one variant's files, and is told what it must know of the bundle."""

import json
from pathlib import Path

import pytest

from fastvlm_compile.bundle.manifest import InputContract, Manifest, Provenance, Variant
from fastvlm_compile.demo.assets import TRANSFORMERS_JS, WASM, WASM_MJS
from fastvlm_compile.demo.site import make_site
from fastvlm_compile.errors import BundleError, ToolError
from fastvlm_compile.tree_digest import FileRecord

FP32 = ("vision_encoder.onnx", "embed_tokens.onnx", "decoder_model_merged.onnx")
INT4 = (
    "vision_encoder_quantized.onnx",
    "embed_tokens_q4.onnx",
    "decoder_model_merged_q4.onnx",
    "decoder_model_merged_q4.onnx_data",
)
MIXED = tuple(f"{Path(name).stem}_mixed.onnx" for name in FP32)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "node_modules"
    for name in (TRANSFORMERS_JS, WASM_MJS, WASM):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "onnx").mkdir(parents=True)
    for name in {*FP32, *INT4, *MIXED}:
        (folder / "onnx" / name).write_text(name)
    (folder / "config.json").write_text("{}")
    (folder / "manifest.json").write_bytes(manifest(("fp32", FP32), ("int4", INT4)))
    return folder


def manifest(*variants: tuple[str, tuple[str, ...]]) -> bytes:
    return Manifest(
        name="small",
        contract=InputContract(
            image_size=128,
            fit="pad",
            image_position="before",
            context_length=64,
            tokens_per_image=4,
        ),
        variants=tuple(
            Variant(
                target="onnx",
                variant=name,
                files=tuple(f"onnx/{file}" for file in files),
                size_bytes=1,
                bits_per_weight=1.0,
                gates=(),
            )
            for name, files in variants
        ),
        provenance=Provenance(checkpoint_digest="", source_revision="", tools={}, recipe=""),
        files=(FileRecord(path="config.json", sha256="0" * 64, size_bytes=2),),
    ).to_bytes()


def test_the_fewest_bits_are_served_unless_others_are_asked_for(bundle: Path, assets: Path) -> None:
    assert make_site(bundle, assets=assets).variant == "int4"
    for asked in ("int4", "q4"):
        site = make_site(bundle, assets=assets, variant=asked)
        served = {address for address in site.files if address.startswith("/model/onnx/")}
        assert served == {f"/model/onnx/{name}" for name in INT4}
    assert make_site(bundle, assets=assets, variant="fp32").variant == "fp32"


def test_the_page_is_told_the_contract_and_the_names_of_the_files(
    bundle: Path, assets: Path
) -> None:
    settings = json.loads(make_site(bundle, assets=assets).contents["/settings.json"])
    assert settings["dtype"] == {
        "vision_encoder": "q8",
        "embed_tokens": "q4",
        "decoder_model_merged": "q4",
    }
    assert (settings["fit"], settings["image_size"], settings["context_length"]) == ("pad", 128, 64)
    assert settings["size_bytes"] == sum(len(name) for name in INT4)
    assert settings["shared_data"] == []


def test_a_file_of_weights_that_the_embedding_shares_is_named(bundle: Path, assets: Path) -> None:
    (bundle / "onnx" / INT4[1]).write_bytes(b"..decoder_model_merged_q4.onnx_data..")
    settings = json.loads(make_site(bundle, assets=assets).contents["/settings.json"])
    assert settings["shared_data"] == [INT4[3]]


def test_a_variant_that_a_browser_cannot_load_is_told_with_those_it_can(
    bundle: Path, assets: Path
) -> None:
    with pytest.raises(BundleError, match="no variant 'mixed'") as caught:
        make_site(bundle, assets=assets, variant="mixed")
    assert caught.value.hint == "known: fp32, int4"
    (bundle / "manifest.json").write_bytes(manifest(("mixed", MIXED)))
    with pytest.raises(BundleError, match="no ONNX variant"):
        make_site(bundle, assets=assets)


def test_missing_packages_and_files_are_told_before_anything_is_served(
    bundle: Path, assets: Path, tmp_path: Path
) -> None:
    with pytest.raises(ToolError, match=r"transformers\.min\.js is not there") as caught:
        make_site(bundle, assets=tmp_path)
    assert "make consumers-env" in caught.value.hint
    (bundle / "onnx" / INT4[2]).unlink()
    with pytest.raises(BundleError, match="the file is missing"):
        make_site(bundle, assets=assets)


def test_the_page_and_what_it_loads_are_there_and_ask_for_nothing_else(
    bundle: Path, assets: Path
) -> None:
    site = make_site(bundle, assets=assets)
    for name in ("/", "/demo.css", "/demo.js", "/worker.js"):
        text = site.files[name].read_text(encoding="utf-8")
        assert "http://" not in text
        assert "https://" not in text
