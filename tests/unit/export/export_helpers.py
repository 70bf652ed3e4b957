"""What the tests of exports share besides fixtures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from fastvlm_compile.export.coreml.convert import VisionPackageConfig, export_vision_package
from fastvlm_compile.export.onnx.decoder import DecoderGraphConfig
from fastvlm_compile.export.onnx.export import (
    VisionGraphConfig,
    export_decoder,
    export_embedding,
    export_vision,
)
from fastvlm_compile.progress import silent
from reference.checkpoint.tensors import Checkpoint, open_checkpoint

OPSET = 21


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, written out once more so that the tests stand alone."""
    assert found.shape == expected.shape
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


@dataclass(frozen=True, kw_only=True)
class Graph:
    """An ONNX file and a session on it."""

    path: Path
    session: ort.InferenceSession

    @classmethod
    def open(cls, path: Path) -> "Graph":
        return cls(
            path=path,
            session=ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]),
        )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(feeds)), strict=True))


def export_all(checkpoint_dir: Path, out: Path) -> Path:
    """All graphs and packages of a checkpoint under `out`, as a build makes them."""
    checkpoint = open_checkpoint(checkpoint_dir)
    out.mkdir()
    export_decoder(decoder_config(checkpoint), checkpoint, out, silent)
    export_embedding(checkpoint, out, silent, opset=OPSET)
    export_vision(vision_config(checkpoint), checkpoint, out, silent)
    for precision in ("float16", "float32"):
        (out / precision).mkdir()
        config = VisionPackageConfig(vision=checkpoint.config.vision, precision=precision)
        export_vision_package(config, checkpoint, out / precision, silent)
    return out


def decoder_config(
    checkpoint: Checkpoint, *, logits: str = "full", tied: bool | None = None
) -> DecoderGraphConfig:
    assert logits in ("full", "last")
    return DecoderGraphConfig(
        text=checkpoint.config.text,
        tied=checkpoint.tied if tied is None else tied,
        logits="full" if logits == "full" else "last",
        opset=OPSET,
    )


def vision_config(checkpoint: Checkpoint) -> VisionGraphConfig:
    return VisionGraphConfig(
        vision=checkpoint.config.vision,
        hidden_size=checkpoint.config.text.hidden_size,
        opset=OPSET,
    )
