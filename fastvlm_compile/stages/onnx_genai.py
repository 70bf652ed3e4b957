"""Stage `onnx.genai`: the graphs that onnxruntime-genai wants beside the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.progress import Progress

CHECKPOINT = "checkpoint"
WEIGHTS = "weights"


@dataclass(frozen=True, kw_only=True)
class OnnxGenaiConfig:
    """Image side S in pixels."""

    image_size: int


def graphs(
    config: OnnxGenaiConfig, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> None:
    """Write `vision<suffix>.onnx` and `embedding<suffix>.onnx` for every variant.

    They are made from the graphs that were built and read their weights; each is compared with the
    one it was made from, bit for bit.

    Args:
        config: image size.
        inputs: `weights`, a checkpoint in any layout; `checkpoint`, for its tokenizer; all others
            are folders with graphs.
        out: an empty directory.
        progress: told of each graph.

    Raises:
        ExportError: a graph does not compute what it was made from.
        PromptError: the tokenizer cannot be read.
    """
    from fastvlm_compile.export.onnx.embedding import EMBEDDING
    from fastvlm_compile.export.onnx.genai import (
        GenaiConfig,
        export_genai_embedding,
        export_genai_vision,
    )
    from fastvlm_compile.export.onnx.vision import VISION
    from reference.config import load_config
    from reference.prompt import IMAGE_TOKEN
    from reference.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(inputs[CHECKPOINT] / "processor").with_special(IMAGE_TOKEN)
    image_token_id = tokenizer.token_id(IMAGE_TOKEN)
    assert image_token_id is not None, "`with_special` gave it one"
    graph_config = GenaiConfig(
        hidden_size=load_config(inputs[WEIGHTS]).text.hidden_size,
        image_size=config.image_size,
        image_token_id=image_token_id,
    )
    folders = [path for name, path in inputs.items() if name not in (CHECKPOINT, WEIGHTS)]
    sources = sorted(path for folder in folders for path in folder.glob("*.onnx"))
    for index, source in enumerate(sources):
        progress(index, len(sources), source.name)
        if source.name.startswith(EMBEDDING):
            export_genai_embedding(graph_config, source, out)
        elif source.name.startswith(VISION):
            export_genai_vision(graph_config, source, out)
    progress(len(sources), len(sources), "graphs for onnxruntime-genai written")
