"""The embedding graph looks rows up, exactly."""

from pathlib import Path

import numpy as np
import torch
from export_helpers import Graph

from reference.fastvlm import FastVLM


def test_embeddings_are_bit_for_bit_those_of_the_reference(
    exported: Path, reference: FastVLM
) -> None:
    vocabulary = reference.config.text.vocab_size
    ids = torch.tensor([[0, 5, 7], [vocabulary - 1, 5, 1]])
    found = Graph.open(exported / "embed_tokens.onnx").run({"input_ids": ids.numpy()})
    with torch.no_grad():
        expected = reference.embed(ids).numpy()
    assert np.array_equal(found["inputs_embeds"], expected)
    assert not np.array_equal(found["inputs_embeds"][0, 0], found["inputs_embeds"][0, 1])
