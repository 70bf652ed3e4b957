"""GatherBlockQuantized gives the rows that the tensor dequantizes to, to the last bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from export_helpers import OPSET, decoder_config
from onnx_quantized_helpers import (
    quantize_language,
    random_tensor,
    run_model,
    unread,
    write_quantized,
)

from fastvlm_compile.export.errors import ExportError
from fastvlm_compile.export.onnx.export_variants import (
    export_quantized_decoder,
    export_quantized_embedding,
)
from fastvlm_compile.export.onnx.files import SavedGraph
from fastvlm_compile.export.onnx.gather_quantized import (
    build_quantized_embedding,
    read_gather_quantized,
    shares_bytes_with_head,
)
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.scheme import Affine, Palette
from fastvlm_compile.quantize.tensor import same_tensor
from fastvlm_compile.quantize.weights_file import QuantizedWeights
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.errors import UserError

EMBEDDING = "model.embed_tokens.weight"
SCHEMES = [
    Affine(bits=bits, block_size=block, symmetric=symmetric)
    for bits in (4, 8)
    for block in (16, 32, 128)
    for symmetric in (True, False)
]


@pytest.mark.parametrize("columns", [128, 384, 72])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_embedding_of_every_token_is_its_dequantized_row_to_the_last_bit(
    scheme: Affine, columns: int, tmp_path: Path
) -> None:
    tensor = random_tensor(scheme, (30, columns))
    model = build_quantized_embedding(
        write_quantized(tmp_path / "q", {EMBEDDING: tensor}), opset=OPSET
    )
    ids = np.random.default_rng(0).permutation(30).reshape(2, 15)
    (rows,) = run_model(model, {"input_ids": ids})
    assert rows.dtype == np.float32
    assert np.array_equal(rows, tensor.dequantize()[ids])
    (node,) = list(model.graph)
    assert same_tensor(read_gather_quantized(model.graph, node), tensor)


@pytest.mark.parametrize("part", ["codes", "scales", "zero_points"])
def test_the_comparison_sees_one_changed_number(part: str, tmp_path: Path) -> None:
    tensor = random_tensor(Affine(bits=4, block_size=32, symmetric=False), (8, 96))
    model = build_quantized_embedding(
        write_quantized(tmp_path / "q", {EMBEDDING: tensor}), opset=OPSET
    )
    name = f"model.embed_tokens.{part}"
    constant = model.graph.initializers[name].const_value
    assert constant is not None
    values = constant.numpy().copy()
    values[5, 1] = values[5, 1] * 2 if part == "scales" else values[5, 1] ^ 1
    model.graph.initializers[name].const_value = ir.Tensor(values, name=name)
    (rows,) = run_model(model, {"input_ids": np.arange(8)[None, :]})
    assert (rows[0] != tensor.dequantize()).any(axis=1).tolist() == [i == 5 for i in range(8)]
    (node,) = list(model.graph)
    assert not same_tensor(read_gather_quantized(model.graph, node), tensor)


def test_an_id_past_the_vocabulary_gives_zeros(tmp_path: Path) -> None:
    tensor = random_tensor(SCHEMES[0], (8, 64))
    model = build_quantized_embedding(
        write_quantized(tmp_path / "q", {EMBEDDING: tensor}), opset=OPSET
    )
    (rows,) = run_model(model, {"input_ids": np.array([[7, 8]])})
    assert rows[0, 0].any()
    assert not rows[0, 1].any()


@pytest.mark.parametrize(
    ("scheme", "columns", "message"),
    [
        (None, 64, "is not quantized"),
        (Affine(bits=8, block_size=0, symmetric=True), 64, "cannot hold int8 per channel"),
        (Palette(bits=4, group_size=0), 64, "cannot hold lut4 per tensor"),
        (Affine(bits=4, block_size=16, symmetric=True), 33, "no whole number of bytes"),
    ],
)
def test_what_the_op_cannot_hold_is_the_users_error(
    scheme: Affine | Palette | None, columns: int, message: str
) -> None:
    entries = {} if scheme is None else {EMBEDDING: (scheme, (16, columns))}
    with pytest.raises(UserError, match=message) as caught:
        build_quantized_embedding(unread(entries), opset=OPSET)
    assert EMBEDDING in caught.value.message
    assert caught.value.hint


def tied_decoder(
    directory: Path, out: Path, scheme: Affine, *, inline_limit_bytes: int = 0
) -> tuple[Checkpoint, QuantizedWeights, SavedGraph]:
    checkpoint = open_checkpoint(directory)
    assert checkpoint.tied
    quantized = quantize_language(checkpoint, out / "quantized", scheme)
    saved = export_quantized_decoder(
        decoder_config(checkpoint),
        checkpoint,
        quantized,
        out,
        silent,
        variant="int4",
        context_length=64,
        inline_limit_bytes=inline_limit_bytes,
    )
    return checkpoint, quantized, saved


@pytest.fixture
def tied_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tie_word_embeddings=True)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_tied_embedding_can_be_read_from_the_decoders_data_file(
    symmetric: bool, tied_checkpoint: Path, tmp_path: Path
) -> None:
    scheme = Affine(bits=4, block_size=32, symmetric=symmetric)
    checkpoint, quantized, decoder = tied_decoder(tied_checkpoint, tmp_path, scheme)
    assert shares_bytes_with_head(quantized)
    shared = export_quantized_embedding(
        quantized, tmp_path, silent, opset=OPSET, variant="int4", share_with=decoder
    )
    assert shared.data == ()
    assert shared.shared == decoder.data
    assert {p.name for p in tmp_path.glob("*.onnx*")} == {
        "decoder_model_merged_q4.onnx",
        "decoder_model_merged_q4.onnx_data",
        "embed_tokens_q4.onnx",
    }
    graph = onnx.load(str(shared.graph), load_external_data=False).graph
    external = {tensor.name for tensor in graph.initializer if tensor.external_data}
    # A tensor below a kilobyte is in the decoder's graph, and so in this one.
    assert external == {"model.embed_tokens.codes", "model.embed_tokens.scales"}
    assert shared.graph.stat().st_size < 2000
    ids = np.arange(checkpoint.config.text.vocab_size)[None, :]
    rows = ort.InferenceSession(str(shared.graph)).run(None, {"input_ids": ids})[0]
    assert np.array_equal(rows[0], quantized.read(EMBEDDING).dequantize())
    ort.InferenceSession(str(decoder.graph))
    (tmp_path / "alone").mkdir()
    alone = export_quantized_embedding(
        quantized, tmp_path / "alone", silent, opset=OPSET, variant="int4"
    )
    assert alone.shared == ()
    assert alone.graph.stat().st_size > quantized.entries[EMBEDDING].size_bytes


def test_a_data_file_with_other_bytes_or_without_the_tensor_is_not_shared(
    tied_checkpoint: Path, tmp_path: Path
) -> None:
    scheme = Affine(bits=4, block_size=32, symmetric=True)
    _, quantized, decoder = tied_decoder(tied_checkpoint, tmp_path, scheme)
    shape = quantized.entries[EMBEDDING].shape
    other = write_quantized(
        tmp_path / "other", {EMBEDDING: random_tensor(scheme, (shape[0], shape[1]), seed=99)}
    )

    def share(with_graph: SavedGraph, weights: QuantizedWeights) -> None:
        export_quantized_embedding(
            weights, tmp_path, silent, opset=OPSET, variant="int4", share_with=with_graph
        )

    with pytest.raises(ExportError, match=r"holds other bytes of model\.embed_tokens\.codes"):
        share(decoder, other)
    with pytest.raises(ExportError, match="has no data file"):
        share(SavedGraph(graph=decoder.graph, data=()), quantized)
    assert not (tmp_path / "embed_tokens_q4.onnx").exists()


def test_blocks_that_do_not_divide_the_rows_are_not_shared() -> None:
    for block, shares in ((32, True), (128, False)):
        scheme = Affine(bits=4, block_size=block, symmetric=True)
        assert shares_bytes_with_head(unread({EMBEDDING: (scheme, (16, 64))})) is shares
