"""A process that decodes some tokens with a compressed decoder and a bounded cache of constants.

    python -m benchmarks.executor_memory FOLDER CACHE_MIB OUT.json

Writes the seconds of each token after the first. Whoever starts it watches its memory.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from validation.runtimes.chunked_decoder import ChunkedDecoder
from validation.runtimes.language_layout import LanguageLayout, read_layout
from validation.runtimes.ml_program.cache import ConstantCache
from validation.runtimes.ml_program.executable import Rounding, load
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program_runtime import ExecutedChunk

NUM_TOKENS = 4
MIB = 2**20


def open_decoder(folder: Path, rounding: Rounding, cache: ConstantCache) -> ChunkedDecoder[State]:
    """The decoder's packages in the executor, over one cache."""
    layout = read_layout(folder)
    chunks = [
        ExecutedChunk(load(folder / each.package, function="prefill", cache=cache), rounding)
        for each in layout.chunks
    ]
    return ChunkedDecoder(layout, chunks)


def main(folder: Path, cache_bytes: int, out: Path) -> None:
    """Decode and write."""
    torch.set_num_threads(2)
    decoder = open_decoder(folder, "fp16", ConstantCache(cache_bytes))
    memory = decoder.new_memory()
    seconds = []
    for row in rows(decoder.layout):
        begun = perf_counter()
        decoder.append(row, memory)
        seconds.append(perf_counter() - begun)
    out.write_text(json.dumps(seconds[1:]), encoding="utf-8")


def rows(layout: LanguageLayout) -> np.ndarray:
    """Embeddings of some tokens, [tokens, 1, H]."""
    drawn = np.random.default_rng(0).standard_normal((NUM_TOKENS, 1, layout.hidden_size))
    return drawn.astype(np.float32) * np.float32(0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) * MIB, Path(sys.argv[3]))
