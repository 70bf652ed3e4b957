"""The files beside the packages: the embedding table, the projector, and what reads them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_language_helpers import relative_l2
from safetensors.torch import load_file

from fastvlm_compile.export.coreml.canonical import canonical_digest
from fastvlm_compile.export.coreml.embedding import export_embedding
from fastvlm_compile.export.coreml.projector import ProjectorPackageConfig, export_projector
from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.progress import silent
from reference.checkpoint.names import EMBED_TOKENS
from reference.checkpoint.tensors import Checkpoint
from reference.fastvlm import FastVLM
from validation.runtimes.embedding_table import EmbeddingTable, EmbeddingTableError
from validation.runtimes.language_layout import LanguageLayoutError, Span, read_layout
from validation.runtimes.ml_program.executable import load

Raw = dict[str, object]


@pytest.fixture(scope="module")
def projectors(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per precision, and one more of the first."""
    out = tmp_path_factory.mktemp("projector")
    for folder, precision in (("16", "float16"), ("32", "float32"), ("again", "float16")):
        (out / folder).mkdir()
        config = ProjectorPackageConfig(
            vision=checkpoint.config.vision,
            hidden_size=checkpoint.config.text.hidden_size,
            precision="float16" if precision == "float16" else "float32",
        )
        export_projector(config, checkpoint, out / folder, silent)
    return out


@pytest.mark.parametrize(("folder", "limit"), [("32", 1e-6), ("16", 2e-3)])
def test_the_projector_computes_what_the_reference_computes(
    projectors: Path, reference: FastVLM, folder: str, limit: float
) -> None:
    program = load(projectors / folder / "projector.mlpackage")
    features = np.random.default_rng(0).standard_normal((1, 4, 256), dtype=np.float32)
    found = program.run({"image_features": features}, rounding="fp16")["image_embeds"]
    assert found.dtype == (np.float16 if folder == "16" else np.float32)
    expected = reference.project(torch.from_numpy(features)).numpy()
    assert relative_l2(found, expected) <= limit
    # Negative control: the limit tells the order of tokens.
    assert relative_l2(found[:, ::-1], expected) > 100 * limit


def test_two_projectors_in_two_folders_have_one_digest(projectors: Path) -> None:
    first, second, other = (
        canonical_digest(projectors / folder / "projector.mlpackage")
        for folder in ("16", "again", "32")
    )
    assert first == second != other


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_the_embedding_table_is_a_safetensors_file_of_the_checkpoints_rows(
    checkpoint: Checkpoint, tmp_path: Path, precision: str
) -> None:
    path = export_embedding(
        checkpoint, tmp_path, silent, precision="float16" if precision == "float16" else "float32"
    )
    expected = checkpoint.read(EMBED_TOKENS)
    (name, stored), *others = load_file(path).items()
    assert (name, others) == ("embed_tokens", [])
    assert torch.equal(stored, expected.to(getattr(torch, precision)))
    table = EmbeddingTable(path)
    assert table.shape == (800, 64)
    ids = np.array([[0, 799], [3, 3]])
    assert np.array_equal(table.look_up(ids), expected.float().numpy()[ids])
    item = 2 if precision == "float16" else 4
    assert path.stat().st_size < 800 * 64 * item + 300


@pytest.mark.parametrize("token", [-1, 800])
def test_a_token_outside_the_table_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, token: int
) -> None:
    table = EmbeddingTable(export_embedding(checkpoint, tmp_path, silent, precision="float16"))
    with pytest.raises(EmbeddingTableError, match="the table has 0 to 799"):
        table.look_up(np.array([5, token]))


def test_an_embedding_that_float16_cannot_hold_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    class Damaged:
        tensors = checkpoint.tensors

        def read(self, name: str) -> torch.Tensor:
            return checkpoint.read(name).float() * 1e9

    with pytest.raises(ExportError, match="not finite in float16"):
        export_embedding(Damaged(), tmp_path, silent, precision="float16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x00" * 4, b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"{}"])
def test_a_damaged_table_is_a_users_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "embedding.safetensors"
    path.write_bytes(content)
    with pytest.raises(EmbeddingTableError, match="not an embedding table"):
        EmbeddingTable(path)


def test_a_truncated_table_is_a_users_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = export_embedding(checkpoint, tmp_path, silent, precision="float16")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EmbeddingTableError, match="not an embedding table"):
        EmbeddingTable(path)


def test_language_json_says_what_a_runtime_needs(pieces: Path) -> None:
    layout = read_layout(pieces)
    assert (layout.precision, layout.context_length, layout.cache_length) == ("float32", 100, 128)
    assert (layout.prefill_chunk, layout.hidden_size, layout.vocab_size) == (8, 64, 800)
    first, _, third, _ = layout.chunks
    assert first.layers == Span(first=0, count=1)
    assert first.functions["prefill"].inputs[0].dims == (1, 8, 64)
    assert [tensor.updated for tensor in first.cache] == [
        "updated_key_cache",
        "updated_value_cache",
    ]
    assert third.vocabulary == Span(first=0, count=400)
    assert third.cache == ()


def test_the_cache_of_packages_that_ship_is_a_state(float16: Path) -> None:
    (chunk,) = read_layout(float16).chunks
    assert [(tensor.name, tensor.updated) for tensor in chunk.cache] == [
        ("key_cache", ""),
        ("value_cache", ""),
    ]
    assert {tensor.shape for tensor in chunk.cache} == {(2, 2, 128, 16)}


def other_schema(raw: Raw) -> None:
    raw["schema"] = 2


def missing_key(raw: Raw) -> None:
    del raw["cache_length"]


def text_for_a_number(raw: Raw) -> None:
    raw["prefill_chunk"] = "8"


def chunks(raw: Raw) -> list[Raw]:
    found = raw["chunks"]
    assert isinstance(found, list)
    return found


def swapped_chunks(raw: Raw) -> None:
    chunks(raw)[:2] = reversed(chunks(raw)[:2])


def missing_tokens(raw: Raw) -> None:
    del chunks(raw)[-1]


def path_out_of_the_folder(raw: Raw) -> None:
    chunks(raw)[0]["package"] = "../decoder.mlpackage"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_schema, "schema 2, expected 1"),
        (missing_key, "cache_length"),
        (text_for_a_number, "a whole number is expected, not '8'"),
        (swapped_chunks, "layers 1 \\+ 1 where 0 should follow"),
        (missing_tokens, "vocabulary end at 400, not at 800"),
        (path_out_of_the_folder, "is not a plain file name"),
    ],
)
def test_a_language_json_that_contradicts_itself_is_a_users_error(
    pieces: Path, tmp_path: Path, damage: Callable[[Raw], None], message: str
) -> None:
    raw = json.loads((pieces / "language.json").read_text(encoding="utf-8"))
    damage(raw)
    (tmp_path / "language.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(LanguageLayoutError, match=message):
        read_layout(tmp_path)


def test_a_missing_language_json_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(LanguageLayoutError, match=r"language\.json: there is no such file"):
        read_layout(tmp_path)
