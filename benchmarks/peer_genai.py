"""onnxruntime-genai as a contestant, in its own environment and with its own loop.

benchmarks/.venv-genai/bin/python -m benchmarks.peer_genai --model DIR ...
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime_genai as og

from benchmarks.contestant import Floats, Ids, decoder_arguments, serve_decoder


class GenaiDecoder:
    """A model folder of genai's.

    Args:
        folder: with `genai_config.json`.
        threads: inside one operator.
        num_positions: that the cache is made for.
    """

    def __init__(self, folder: Path, *, threads: int, num_positions: int) -> None:
        config = og.Config(str(folder))
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)
        self._num_positions = num_positions
        self._generator = self._new()

    def begin(self, tokens: Ids) -> None:
        """Append the prompt, which computes it, then choose."""
        self._generator = self._new()
        self._generator.append_tokens(tokens.astype(np.int32)[None])
        self._generator.generate_next_token()

    def step(self) -> None:
        """Compute the chosen token, then choose."""
        self._generator.generate_next_token()

    def forced(self, tokens: Ids, prompt_length: int) -> Floats:
        """Logits behind the prompt and behind each later token."""
        generator, rows = self._new(), []
        for piece in np.split(tokens.astype(np.int32), range(prompt_length, len(tokens))):
            generator.append_tokens(piece[None])
            rows.append(np.asarray(generator.get_logits(), dtype=np.float32).reshape(-1))
        return np.stack(rows)

    def _new(self) -> og.Generator:
        params = og.GeneratorParams(self._model)
        # An answer of so many tokens whatever they are: made-up weights may choose the end.
        limits = {"max_length": self._num_positions, "min_length": self._num_positions}
        params.set_search_options(do_sample=False, **limits)
        return og.Generator(self._model, params)


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--positions", type=int, required=True)
    decoder_arguments(parser)
    arguments = parser.parse_args()
    og.disable_telemetry_events()
    decoder = GenaiDecoder(
        arguments.model, threads=arguments.threads, num_positions=arguments.positions
    )
    serve_decoder(decoder, arguments)


if __name__ == "__main__":
    main()
