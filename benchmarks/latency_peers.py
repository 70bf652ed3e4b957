"""Makes what our bundle is compared with, from the bundle's own weights; each step is a process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plain_qwen2 import write_plain_qwen2
from benchmarks.referee import ROOT
from benchmarks.watch import watch

GENAI = ROOT / "benchmarks" / ".venv-genai" / "bin" / "python"
LLAMA = ROOT / "benchmarks" / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True, kw_only=True)
class LanguagePeers:
    """The same language model as others have it.

    Attributes:
        genai: the folder of genai's builder.
        llama: a GGUF file.
    """

    genai: Path
    llama: Path

    def sizes_bytes(self) -> dict[str, int]:
        """Of the files on disk, by the peer's name."""
        files = [path for path in self.genai.iterdir() if ".onnx" in path.name]
        return {
            "genai builder int4": sum(path.stat().st_size for path in files),
            "llama.cpp Q4_0": self.llama.stat().st_size,
        }


@dataclass(frozen=True, kw_only=True)
class PlainGraphs:
    """The same model in the style of published transformers.js bundles."""

    vision: Path
    embed: Path
    decoder: Path


def make_language_peers(weights: Path, folder: Path) -> LanguagePeers:
    """genai's builder with `-p int4 -e cpu`, and llama.cpp's quantizer with Q4_0.

    Args:
        weights: a checkpoint.
        folder: empty.

    Raises:
        RuntimeError: one of them fails.
    """
    plain, built, cache = (folder / name for name in ("plain", "genai", "cache"))
    plain.mkdir()
    write_plain_qwen2(weights, plain)
    command = [str(GENAI), "-m", "onnxruntime_genai.models.builder", "-i", str(plain)]
    command += ["-o", str(built), "-c", str(cache), "-p", "int4", "-e", "cpu"]
    watch(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    out = folder / "q4_0.gguf"
    command = [str(LLAMA), "-m", "benchmarks.peer_gguf", "--checkpoint", str(plain)]
    watch([*command, "--out", str(out)])
    return LanguagePeers(genai=built, llama=out)


def make_plain_graphs(bundle: Path, folder: Path) -> PlainGraphs:
    """The tower exported as it comes, our float32 decoder through onnxruntime's quantizer.

    Args:
        bundle: with the targets onnx and torch.
        folder: empty.

    Raises:
        RuntimeError: one of them fails.
    """
    command = [sys.executable, "-m", "benchmarks.plain_graphs"]
    vision, decoder = folder / "vision_encoder.onnx", folder / "decoder_q4.onnx"
    watch([*command, "vision", "--weights", str(bundle / "torch"), "--out", str(vision)])
    ours = bundle / "onnx" / "decoder_model_merged.onnx"
    watch([*command, "q4", "--decoder", str(ours), "--out", str(decoder)])
    embed = bundle / "onnx" / "embed_tokens.onnx"
    return PlainGraphs(vision=vision, embed=embed, decoder=decoder)


def versions_of_peers() -> Mapping[str, str]:
    """Of what computes or builds in the other environments."""
    wanted = {
        GENAI: ("onnxruntime-genai", "onnxruntime"),
        LLAMA: ("llama-cpp-python", "gguf"),
    }
    script = "import importlib.metadata as m, sys\n"
    script += "print(*(m.version(name) for name in sys.argv[1:]))"
    found: dict[str, str] = {}
    for python, names in wanted.items():
        command = [str(python), "-c", script, *names]
        told = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        label = "genai's onnxruntime" if python == GENAI else ""
        found |= {
            (label if name == "onnxruntime" else name): version
            for name, version in zip(names, told, strict=True)
        }
    return found
