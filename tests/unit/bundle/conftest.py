"""A small checkpoint's files and a bundle plan made from them; no weights are computed with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastvlm_compile.bundle.assemble import BundlePlan, Part, VariantPlan
from fastvlm_compile.bundle.manifest import InputContract, Provenance
from fastvlm_compile.checkpoint.tokenizer_files import TokenizerSpec, write_tokenizer_files
from validation.gates import GateRow

RAW_CONFIG: dict[str, object] = {
    "_name_or_path": "/home/somebody/checkpoints/llava-tiny",
    "architectures": ["LlavaQwen2ForCausalLM"],
    "bos_token_id": 300,
    "eos_token_id": 302,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 4096,
    "mm_hidden_size": 256,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_config": {"depths": [1, 1, 1, 1, 1], "widths": [8, 16, 32, 64, 128]},
    "mm_vision_tower": "mobileclip_l_1024",
    "model_type": "llava_qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "use_mm_proj": True,
    "vocab_size": 304,
}


@pytest.fixture
def raw_config() -> dict[str, object]:
    return dict(RAW_CONFIG)


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as Apple's checkpoints have it: 300 entries, three special tokens, no <image>."""
    directory = tmp_path_factory.mktemp("processor")
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    spec = TokenizerSpec(num_regular=300, added=special, model_max_length=4096)
    write_tokenizer_files(directory, spec)
    return directory


@pytest.fixture
def contract() -> InputContract:
    return InputContract(
        image_size=128,
        fit="pad",
        image_position="before",
        context_length=2048,
        tokens_per_image=4,
    )


@pytest.fixture
def gate() -> GateRow:
    return GateRow(
        target="onnx",
        variant="fp32",
        component="decoder",
        metric="psnr_db",
        status="passed",
        bound="min",
        threshold=60.0,
        value=float("inf"),
        executor="onnxruntime 1.31.1 (CPUExecutionProvider)",
        why="fp32 against fp32",
    )


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """What stages left in the store."""
    store = tmp_path / "store"
    for name, content in {
        "vision/vision_encoder.onnx": b"\x08\x0avision" * 40,
        "vision/vision_encoder.onnx_data": bytes(range(256)) * 20,
        "decoder/decoder_model_merged.onnx": b"\x08\x0adecoder" * 30,
        "coreml/fastvithd.mlpackage/Manifest.json": b"{}\n",
        "coreml/fastvithd.mlpackage/Data/weights/weight.bin": b"\x01\x02" * 500,
        "parity.md": b"all is well\n",
    }.items():
        path = store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return store


@pytest.fixture
def plan(built: Path, contract: InputContract, gate: GateRow) -> BundlePlan:
    return BundlePlan(
        name="sample",
        parts=(
            Part(path="onnx", source=built / "vision"),
            Part(path="onnx", source=built / "decoder"),
            Part(path="coreml/fastvithd.mlpackage", source=built / "coreml/fastvithd.mlpackage"),
            Part(path="reports/parity.md", source=built / "parity.md"),
        ),
        root_files={"config.json": b'{"model_type": "llava_qwen2"}\n', "vocab.json": b"{}\n"},
        contract=contract,
        variants=(
            VariantPlan(
                target="onnx", variant="fp32", files=("onnx",), num_weights=1000, gates=(gate,)
            ),
            VariantPlan(
                target="coreml",
                variant="float16",
                files=("coreml/fastvithd.mlpackage",),
                num_weights=500,
                gates=(),
            ),
        ),
        provenance=Provenance(
            checkpoint_digest="c0ffee",
            source_revision="0123abc",
            tools={"torch": "2.13.0", "onnx": "1.23.2"},
            recipe="schema: 1\nname: sample\n",
        ),
        private_paths=(built,),
    )


@pytest.fixture
def changed(plan: BundlePlan) -> Callable[..., BundlePlan]:
    """The plan with other fields."""

    def change(**fields: Any) -> BundlePlan:
        return replace(plan, **fields)

    return change
