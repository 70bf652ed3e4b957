"""What the folders `mlx/<variant>` and `apple_app` hold beside weights, so that each loads alone.

Sources: `mlx_vlm.utils.load` (0.7.10) and its FastVLM processor; the FastVLM model of Apple's app
(ml-fastvlm, `app/`).
"""

import json
from collections.abc import Mapping
from pathlib import Path

APPLE_APP = "apple_app"
VISION_PACKAGE = "fastvithd.mlpackage"
"""The app's build makes a Swift class of this name."""

_SHARED = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_OF_APP = (*_SHARED, "vocab.json", "merges.txt")
"""What `tokenizer.json` is made from: the app's tokenizer library wants neither, its users may."""

_OF_THE_ROOT_ALONE = ("transformers.js_config",)


def mlx_files(root: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    """Path in the bundle -> content of all that mlx-vlm wants beside weights and their config.

    Args:
        root: the files at the bundle's root.
        folder: in the bundle, `mlx/int4`.
    """
    return {f"{folder}/{name}": root[name] for name in _SHARED if name in root}


def apple_app_files(root: Mapping[str, bytes], weights: Path) -> dict[str, bytes]:
    """Path in the bundle -> content of all that Apple's app wants beside weights and package.

    `config.json` is the root's, which knows the id of `<image>`, with the section `quantization` of
    the weights.

    Args:
        root: the files at the bundle's root.
        weights: what stage `apple_app.<variant>` wrote.
    """
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    config |= json.loads(root["config.json"])
    kept = {key: config[key] for key in sorted(config) if key not in _OF_THE_ROOT_ALONE}
    files = {name: root[name] for name in _OF_APP if name in root}
    files["config.json"] = f"{json.dumps(kept, indent=2, ensure_ascii=False)}\n".encode()
    return {f"{APPLE_APP}/{name}": files[name] for name in sorted(files)}
