"""The vision tower as Apple's app wants it: `images` in, features before the projector out."""

import torch
from torch import Tensor, nn

from fastvlm_compile.export.weight_source import WeightSource
from reference.checkpoint.names import HEAD_PROJECTION, VISION_PREFIX
from reference.config import VisionConfig
from reference.fastvithd import FastViTHD


class VisionTower(nn.Module):
    """[1, 3, S, S] in 0..1 -> [1, T, C], positions row by row."""

    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        self.tower = FastViTHD(vision)
        del self.tower.head  # in the file, never used

    def forward(self, images: Tensor) -> Tensor:
        """[1, 3, S, S] -> [1, T, C]."""
        feature_map: Tensor = self.tower(images)
        return feature_map.flatten(2).transpose(1, 2)


def load_tower(vision: VisionConfig, source: WeightSource) -> VisionTower:
    """The tower with its weights in float32, and nothing else of the checkpoint in memory."""
    with torch.device("meta"):
        module = VisionTower(vision)
    state: dict[str, Tensor] = {}
    for name in source.tensors:
        if name.startswith(VISION_PREFIX) and name != HEAD_PROJECTION:
            tensor = source.read(name)
            # Clones, so that nothing refers to the mapped file when the tower is converted.
            wide = tensor.to(torch.float32) if tensor.is_floating_point() else tensor
            state[f"tower.{name.removeprefix(VISION_PREFIX)}"] = wide.clone()
    for name, buffer in module.named_buffers():
        if name not in state and name.endswith(".num_batches_tracked"):
            state[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(requires_grad=False)
