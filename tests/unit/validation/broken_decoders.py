"""Ways for a decoder to be wrong, each of which parity must catch.

Each takes the honest `run` and its inputs, and returns a spoiled output.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from validation.runtimes.onnx_decoder import DecoderOutput, OnnxDecoder


class BrokenDecoder(OnnxDecoder):
    """A decoder whose inputs and outputs a test may spoil."""

    def __init__(self, decoder: OnnxDecoder, spoil: Callable) -> None:
        super().__init__(decoder.graph)
        self.spoil = spoil

    def run(self, **inputs) -> DecoderOutput:
        return self.spoil(super().run, inputs)


def scaled(run, inputs):
    output = run(**inputs)
    return replace(output, logits=output.logits * np.float32(1.02))


def sign_flipped(run, inputs):
    output = run(**inputs)
    return replace(output, logits=-output.logits)


def nan_in_one_logit(run, inputs):
    output = run(**inputs)
    output.logits[0, -1, 7] = np.nan
    return output


def next_position(run, inputs):
    output = run(**inputs)
    return replace(output, logits=np.roll(output.logits, 1, axis=1))


def top_two_swapped(run, inputs):
    logits = run(**inputs).logits.copy()
    output = run(**inputs)
    order = np.argsort(-logits[0, -1])
    logits[0, -1, order[:2]] = logits[0, -1, order[1::-1]]
    return replace(output, logits=logits)


def steps_one_position_late(run, inputs):
    # All positions shifted alike would change nothing: rotary angles are relative.
    past = next(iter(inputs["cache"].values())).shape[2]
    return run(**{**inputs, "position_ids": inputs["position_ids"] + int(past > 0)})


def key_and_value_exchanged(run, inputs):
    other = {"key": "value", "value": "key"}
    cache = inputs["cache"]
    renamed = {
        name: cache[name.rsplit(".", 1)[0] + "." + other[name.rsplit(".", 1)[1]]] for name in cache
    }
    return run(**{**inputs, "cache": renamed})


def heads_exchanged(run, inputs):
    cache = {name: np.ascontiguousarray(a[:, ::-1]) for name, a in inputs["cache"].items()}
    return run(**{**inputs, "cache": cache})


def past_reversed(run, inputs):
    cache = {name: np.ascontiguousarray(a[:, :, ::-1]) for name, a in inputs["cache"].items()}
    return run(**{**inputs, "cache": cache})


def mask_ignored(run, inputs):
    return run(**{**inputs, "attention_mask": np.ones_like(inputs["attention_mask"])})


def layout_transposed(run, inputs):
    cache = {name: np.ascontiguousarray(a.transpose(0, 2, 1, 3)) for name, a in
             inputs["cache"].items()}  # fmt: skip
    output = run(**inputs)
    return replace(output, cache=cache)
