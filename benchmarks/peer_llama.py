"""llama.cpp as a contestant, in its own environment, through its C interface.

benchmarks/.venv-peers/bin/python -m benchmarks.peer_llama --model FILE.gguf ...
"""

import argparse
import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

from benchmarks.contestant import Floats, Ids, decoder_arguments, serve_decoder


class LlamaDecoder:
    """A GGUF file.

    Args:
        path: the file.
        threads: of prompt and of steps.
        num_positions: that the cache is made for.

    Raises:
        RuntimeError: llama.cpp cannot open it.
    """

    def __init__(self, path: Path, *, threads: int, num_positions: int) -> None:
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot open {path.name}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = -(-num_positions // 256) * 256
        # The whole prompt as one batch, as the others take it.
        params.n_batch = params.n_ubatch = params.n_ctx
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context for {path.name}")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._chosen = 0

    def begin(self, tokens: Ids) -> None:
        """Clear the cache, compute the prompt, then choose."""
        self._clear()
        self._chosen = int(self._append(tokens).argmax())

    def step(self) -> None:
        """Compute the chosen token, then choose."""
        self._chosen = int(self._append(np.array([self._chosen])).argmax())

    def forced(self, tokens: Ids, prompt_length: int) -> Floats:
        """Logits behind the prompt and behind each later token."""
        self._clear()
        pieces = np.split(tokens, range(prompt_length, len(tokens)))
        return np.stack([self._append(piece).copy() for piece in pieces])

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)  # noqa: FBT003 - C

    def _append(self, tokens: Ids) -> Floats:
        """Logits [V] behind these tokens: a view that the next call overwrites."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens.tolist())
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status}")
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        address = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
        logits: Floats = np.ctypeslib.as_array(address, shape=(self._vocab_size,))
        return logits


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--positions", type=int, required=True)
    decoder_arguments(parser)
    arguments = parser.parse_args()
    decoder = LlamaDecoder(
        arguments.model, threads=arguments.threads, num_positions=arguments.positions
    )
    serve_decoder(decoder, arguments)


if __name__ == "__main__":
    main()
