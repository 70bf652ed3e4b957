"""`config.json` of an MLX folder.

Sources: what the FastVLM model of Apple's app and mlx-vlm's `ModelConfig` read, and `quantization`
as `mlx.nn.quantize` is given it: a group size and bits for all, and per module where it differs.
"""

from collections import Counter
from collections.abc import Mapping
from math import prod

from fastvlm_compile.checkpoint.configs import to_apple_config
from fastvlm_compile.export.mlx.names import MlxLayout, module_of, to_mlx
from fastvlm_compile.quantize.scheme import Affine, Shape
from reference.config import parse_config
from reference.prompt import IMAGE_SENTINEL


def mlx_config(
    raw: Mapping[str, object],
    *,
    tied: bool,
    layout: MlxLayout,
    quantization: Mapping[str, object],
) -> dict[str, object]:
    """A checkpoint's config for a layout.

    Apple's app also wants `image_token_index`, the id of `<image>`. Where the checkpoint's config
    does not name it, it is for whoever knows the tokenizer to add.

    Args:
        raw: the checkpoint's `config.json`, in either layout.
        tied: whether the output head is the embedding, as the tensors say.
        layout: mlx-vlm's processor marks images by -200 whatever the tokenizer says.
        quantization: from `quantization_section`; empty for none.

    Raises:
        ConfigError: it is not a FastVLM config.
    """
    config = dict(raw)
    if parse_config(raw, source="config.json").layout == "transformers":
        config = to_apple_config(raw, source="config.json", tied=tied)
    config["tie_word_embeddings"] = tied
    if layout == "mlx_vlm":
        config["image_token_index"] = IMAGE_SENTINEL
    if quantization:
        config["quantization"] = dict(quantization)
    return dict(sorted(config.items()))


def quantization_section(
    schemes: Mapping[str, Affine], shapes: Mapping[str, Shape], layout: MlxLayout
) -> dict[str, object]:
    """`group_size` and `bits` of most weights, and those of each module that has others.

    Modules that are not quantized need no word: loaders see that they have no scales.
    """
    weights: Counter[tuple[int, int]] = Counter()
    for name, scheme in schemes.items():
        weights[scheme.block_size, scheme.bits] += prod(shapes[name])
    if not weights:
        return {}
    usual = max(weights, key=lambda choice: (weights[choice], choice))
    section: dict[str, object] = _choice(*usual)
    for name, scheme in sorted(schemes.items()):
        target = to_mlx(name, layout)
        assert target is not None, "only tensors of the layout are given"
        if (scheme.block_size, scheme.bits) != usual:
            section[module_of(target)] = _choice(scheme.block_size, scheme.bits)
    return section


def _choice(group_size: int, bits: int) -> dict[str, object]:
    return {"group_size": group_size, "bits": bits}
