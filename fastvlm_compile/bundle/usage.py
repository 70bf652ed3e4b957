"""How to use a bundle, one block for each consumer that it has files for.

The blocks run as they stand in the bundle's folder, with a `photo.png` in it; they follow the
convention of the project's README, and the same test runs them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastvlm_compile.bundle import usage_blocks
from fastvlm_compile.bundle.layout import runtimes_of, shipped_of
from fastvlm_compile.bundle.manifest import Manifest

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One consumer's block.

    Attributes:
        title: above the block.
        install: what gets the consumer; the test does not run it.
        consumer: as the registry names it; empty for this program itself.
        serves: whether the block goes on until it is interrupted.
        language: of the fence.
        block: its text for a bundle; empty where the bundle has nothing for it.
    """

    title: str
    install: str = ""
    consumer: str = ""
    serves: bool = False
    language: str = "sh"
    block: Callable[[Manifest], str]


def usage(manifest: Manifest, *, real_tower: bool) -> str:
    """The section of the card.

    Args:
        manifest: of the bundle.
        real_tower: whether the vision tower has the released sizes, which some consumers fix.
    """
    known = [each for each in USAGES if real_tower or each.consumer not in _REAL_TOWER_ONLY]
    return "## Use it in\n\n" + "\n".join(
        _shown(each, text) for each in known if (text := each.block(manifest))
    )


def _shown(each: Usage, text: str) -> str:
    serves = ", serves" if each.serves else ""
    marker = f"<!-- consumer: {each.consumer}{serves} -->\n" if each.consumer else ""
    install = f" (`{each.install}`)" if each.install else ""
    return f"**{each.title}**{install}\n\n{marker}```{each.language}\n{text.rstrip()}\n```\n"


def _ours(manifest: Manifest) -> str:
    asked = 'fastvlm-compile generate . --image photo.png --prompt "What is this?"'
    options = {"onnxruntime": ""}
    lines = (
        asked + options.get(runtime, f" --runtime {runtime}")
        for runtime in runtimes_of(manifest.variants)
    )
    return "\n".join(("fastvlm-compile verify .", *lines))


def _if_there(path: str, text: str) -> Callable[[Manifest], str]:
    """`text` for a bundle with that file, or with files in that folder."""

    def block(manifest: Manifest) -> str:
        there = any(f.path == path or f.path.startswith(f"{path}/") for f in manifest.files)
        return text if there else ""

    return block


def _genai(manifest: Manifest) -> str:
    fit = {"pad": "pad", "crop": "fit"}[manifest.contract.fit]  # Pillow's names
    return _if_there("genai_config.json", usage_blocks.GENAI.replace("FIT", fit))(manifest)


def _mlx(manifest: Manifest) -> str:
    shipped = shipped_of(manifest.variants, "mlx")
    return usage_blocks.MLX_VLM.replace("VARIANT", shipped[0].variant) if shipped else ""


def _transformers(manifest: Manifest) -> str:
    if not shipped_of(manifest.variants, "torch"):
        return ""
    there = {file.path for file in manifest.files}
    tokenizer = " ".join(name for name in _TOKENIZER if name in there)
    return usage_blocks.TRANSFORMERS.replace("TOKENIZER", tokenizer)


_REAL_TOWER_ONLY = frozenset({"mlx-vlm", "apple app"})

USAGES = (
    Usage(title="fastvlm-compile", block=_ours),
    Usage(
        title="onnxruntime alone",
        install="pip install numpy onnxruntime pillow tokenizers",
        consumer="onnxruntime",
        block=_if_there("example/answer.py", usage_blocks.ONNXRUNTIME),
    ),
    Usage(
        title="transformers.js",
        install="npm install @huggingface/transformers",
        consumer="transformers.js",
        language="js",
        block=_if_there("onnx/vision_encoder.onnx", usage_blocks.TRANSFORMERS_JS),
    ),
    Usage(
        title="A browser",
        install="npm install @huggingface/transformers",
        consumer="transformers.js in a browser",
        serves=True,
        block=_if_there("onnx/vision_encoder.onnx", usage_blocks.BROWSER),
    ),
    Usage(
        title="onnxruntime-genai",
        install="pip install onnxruntime-genai pillow",
        consumer="onnxruntime-genai",
        language="python",
        block=_genai,
    ),
    Usage(title="mlx-vlm", install="pip install mlx-vlm", consumer="mlx-vlm", block=_mlx),
    Usage(
        title="Apple's app",
        install="git clone https://github.com/apple/ml-fastvlm",
        consumer="apple app",
        block=_if_there("apple_app", usage_blocks.APPLE_APP),
    ),
    Usage(
        title="transformers",
        install="pip install 'transformers>=5' timm torchvision pillow",
        consumer="transformers",
        block=_transformers,
    ),
    Usage(
        title="Core ML",
        install="pip install coremltools",
        consumer="coremltools",
        language="python",
        block=_if_there("coreml/fastvithd.mlpackage", usage_blocks.COREMLTOOLS),
    ),
)
