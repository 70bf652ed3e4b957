"""What the decoder is given in calibration: image features and embeddings, spliced.

Each part is quantized on the way, and what follows sees it so: errors that are known can be made up
for. One image, one layer of the projector, one prompt at a time.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fastvlm_compile.quantize.bench import Bench
from fastvlm_compile.quantize.calibration import Calibration, CalibrationCase
from fastvlm_compile.quantize.hessians import InputMoments
from reference.checkpoint.names import (
    EMBED_TOKENS,
    HEAD_PROJECTION,
    PROJECTOR_PREFIX,
    VISION_PREFIX,
)
from reference.fastvithd import FastViTHD
from reference.kept import NOTHING_KEPT, Arrays, Kept
from reference.linear import linear
from reference.prompt import IMAGE_SENTINEL


def prompt_embeds(
    bench: Bench, calibration: Calibration, kept: Kept = NOTHING_KEPT
) -> list[Tensor]:
    """Float32 [L, H] of every case; quantizes the projector and an untied embedding on the way.

    The vision tower must have been quantized before. What it makes of each image is kept.
    """
    features = _project(bench, _tower_features(bench, calibration, kept))
    if not bench.tied:
        bench.quantize(EMBED_TOKENS)
    used = sorted({token for case in calibration.cases for token in case.token_ids})
    text = [token for token in used if token != IMAGE_SENTINEL]
    rows = bench.embeddings(torch.tensor(text))
    table = {token: rows[index : index + 1] for index, token in enumerate(text)}
    return [_splice(case, table, features) for case in calibration.cases]


def _tower_features(bench: Bench, calibration: Calibration, kept: Kept) -> dict[str, Tensor]:
    """[T, C] of each image; the tower is loaded for them and dropped."""
    tower = _load_tower(bench)
    features = {}
    for image_id in calibration.index.image_ids:
        bench.tell(f"calibration image {image_id}")
        pixels = torch.from_numpy(calibration.pixel_values(image_id))[None]

        def encode(_: Kept, pixels: Tensor = pixels) -> Arrays:
            return {"features": tower(pixels)[0].flatten(1).T.contiguous().numpy()}

        made = kept.arrays(f"features of {image_id}", encode)
        features[image_id] = torch.from_numpy(made["features"])
    return features


def _load_tower(bench: Bench) -> FastViTHD:
    with torch.device("meta"):
        tower = FastViTHD(bench.config.vision)
    state: dict[str, Tensor] = {}
    for name in bench.names:
        if name.startswith(VISION_PREFIX):
            state[name.removeprefix(VISION_PREFIX)] = bench.weight(name)
    for name, tensor in tower.state_dict().items():
        if name in state:
            continue
        # A file may lack the unused head and BatchNorm's counters.
        assert name.endswith(".num_batches_tracked") or VISION_PREFIX + name == HEAD_PROJECTION
        state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    tower.load_state_dict(state, strict=True, assign=True)
    return tower.eval().requires_grad_(requires_grad=False)


def _project(bench: Bench, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """[T, C] -> [T, H] of each image."""
    hidden = _linear(bench, f"{PROJECTOR_PREFIX}0", features)
    hidden = {image_id: F.gelu(x) for image_id, x in hidden.items()}
    return _linear(bench, f"{PROJECTOR_PREFIX}2", hidden)


def _linear(bench: Bench, prefix: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantize a linear layer for its inputs, then apply it to them."""
    name = f"{prefix}.weight"
    need = bench.need(name)
    moments = None
    if need != "nothing":
        _, num_inputs = bench.shape(name)
        moments = InputMoments(num_inputs=num_inputs, full=need == "full")
        for x in inputs.values():
            moments.add(x)
    bench.quantize(name, moments)
    weight, bias = bench.weight(name), bench.weight(f"{prefix}.bias")
    return {image_id: linear(x, weight, bias) for image_id, x in inputs.items()}


def _splice(
    case: CalibrationCase, table: Mapping[int, Tensor], features: Mapping[str, Tensor]
) -> Tensor:
    images = iter(case.image_ids)
    pieces = [
        features[next(images)] if token == IMAGE_SENTINEL else table[token]
        for token in case.token_ids
    ]
    return torch.cat(pieces)
