"""What every runtime can do: encode images, embed tokens, give logits, decode."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from reference.decoding import Session

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class Runtime(Protocol):
    """One way to run a FastVLM. B batch, S image side, T tokens per image, H hidden, V vocabulary.

    Logits may be those of the last position alone, where the graph was built so.
    """

    @property
    def executor(self) -> str:
        """The program and version that computes: `onnxruntime 1.31.1 (CPUExecutionProvider)`."""
        ...

    @property
    def executed_by_core_ml(self) -> bool:
        """Whether Apple's Core ML computes any of it."""
        ...

    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H], projector included."""
        ...

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        ...

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, L, V], or [B, 1, V] when the graph gives the last position only."""
        ...

    def session(self, inputs_embeds: Floats) -> Session:
        """A new decoding of the prompt [1, L, H]."""
        ...
