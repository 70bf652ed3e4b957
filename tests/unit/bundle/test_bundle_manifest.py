"""The manifest keeps everything, and shows a change of any of its bytes."""

import json
import math
from dataclasses import replace

import pytest

from fastvlm_compile.bundle.manifest import (
    InputContract,
    Manifest,
    Provenance,
    Variant,
    parse_manifest,
    read_manifest,
    render,
    self_digest,
)
from fastvlm_compile.errors import BundleError
from fastvlm_compile.tree_digest import FileRecord
from reference.prompt import build_prompt
from validation.gates import GateRow


@pytest.fixture
def manifest(contract: InputContract, gate: GateRow) -> Manifest:
    failed = replace(gate, status="not run", value=None, reason="needs macOS", threshold=math.inf)
    return Manifest(
        name="sample",
        contract=contract,
        variants=(
            Variant(
                target="onnx",
                variant="fp32",
                files=("onnx",),
                size_bytes=4000,
                bits_per_weight=32.0,
                gates=(gate, failed),
            ),
        ),
        provenance=Provenance(
            checkpoint_digest="c0ffee",
            source_revision="0123",
            tools={"b": "2", "a": "1"},
            recipe="é",
        ),
        files=(FileRecord(path="onnx/a.onnx", size_bytes=4000, sha256="ab" * 32),),
    )


def test_what_is_written_reads_back_equal(manifest: Manifest) -> None:
    assert parse_manifest(manifest.to_bytes(), source="manifest.json") == manifest


def test_further_sizes_of_the_core_ml_packages_are_told_where_there_are_any(
    manifest: Manifest,
) -> None:
    assert "further_coreml_sizes" not in json.loads(manifest.to_bytes())["contract"]["image"]
    contract = replace(manifest.contract, further_coreml_sizes=(320, 512))
    more = replace(manifest, contract=contract)
    assert json.loads(more.to_bytes())["contract"]["image"]["further_coreml_sizes"] == [320, 512]
    assert parse_manifest(more.to_bytes(), source="manifest.json") == more


def test_the_contract_tells_the_whole_prompt(manifest: Manifest) -> None:
    document = json.loads(manifest.to_bytes())
    template = document["contract"]["prompt"]["template"]
    assert template.replace("{prompt}", "Why?") == build_prompt("Why?")


def test_infinities_are_told_in_json_that_everybody_reads(manifest: Manifest) -> None:
    gates = json.loads(manifest.to_bytes())["variants"][0]["gates"]
    assert gates[0]["value"] == "inf"
    assert gates[1]["value"] is None


def test_equal_manifests_are_equal_bytes_in_whatever_order_tools_were_noted(
    manifest: Manifest,
) -> None:
    other = replace(manifest, provenance=replace(manifest.provenance, tools={"a": "1", "b": "2"}))
    assert other.to_bytes() == manifest.to_bytes()


def test_a_change_of_any_single_byte_is_noticed(manifest: Manifest) -> None:
    content = manifest.to_bytes()
    for position in range(len(content)):
        for change in (1, 0x20):  # another digit or letter; a blank, or the other case
            damaged = bytearray(content)
            damaged[position] ^= change
            with pytest.raises(BundleError):
                parse_manifest(bytes(damaged), source="manifest.json")


def test_a_lost_or_added_byte_is_noticed(manifest: Manifest) -> None:
    content = manifest.to_bytes()
    for damaged in (content[:-1], content + b"\n", content + b" ", b" " + content, b""):
        with pytest.raises(BundleError, match="damaged"):
            parse_manifest(damaged, source="manifest.json")


def test_a_manifest_of_another_schema_asks_for_the_version_that_wrote_it(
    manifest: Manifest,
) -> None:
    document = json.loads(manifest.to_bytes())
    document["schema"] = 2
    document["digest"] = self_digest(document)
    with pytest.raises(BundleError, match="schema 2, this program reads 1") as raised:
        parse_manifest(render(document), source="manifest.json")
    assert "version" in raised.value.hint


def test_a_manifest_whose_digest_was_made_to_fit_must_still_make_sense(
    manifest: Manifest,
) -> None:
    document = json.loads(manifest.to_bytes())
    del document["contract"]["image"]
    document["digest"] = self_digest(document)
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        parse_manifest(render(document), source="manifest.json")


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json, so this is not a bundle"):
        read_manifest(tmp_path)
    with pytest.raises(BundleError, match="there is no such bundle"):
        read_manifest(tmp_path / "absent")
