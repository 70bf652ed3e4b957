"""Contestants that run in our environment: our graphs, plain graphs, and the reference.

    python -m benchmarks.latency_ours decoder --decoder FILE --embed FILE ...
    python -m benchmarks.latency_ours onnx-vision --vision FILE ...
    python -m benchmarks.latency_ours torch-vision --weights DIR ...
    python -m benchmarks.latency_ours first-token --bundle DIR --vision FILE --decoder ...
    python -m benchmarks.latency_ours answer --bundle DIR --image FILE ...

The last is no contestant: it answers once and ends, to have its memory watched.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.contestant import (
    FIRST_TOKEN,
    VISION,
    Floats,
    Ids,
    decoder_arguments,
    serve,
    serve_decoder,
)
from fastvlm_compile.latency.inputs import QUESTION, Inputs, inputs_of
from reference.decoding import Logits, Session
from validation.answer import splice
from validation.runtimes.onnx_decoder import OnnxDecoder, OnnxSession
from validation.runtimes.onnx_graph import OnnxGraph
from validation.runtimes.onnxruntime_runtime import GraphPaths, OnnxRuntime


class OnnxDecoderContestant:
    """A decoder graph of our contract in the loop that our `generate` has."""

    def __init__(self, decoder: Path, embed: Path, threads: int) -> None:
        self._decoder = OnnxDecoder(OnnxGraph(decoder, threads=threads))
        self._embed_graph = OnnxGraph(embed, threads=threads)
        self._session: Session | None = None
        self._chosen = np.zeros(1, dtype=np.int64)

    def begin(self, tokens: Ids) -> None:
        """Embed and compute the prompt, then choose."""
        self._session = self._new(tokens)
        self._chosen = _greedy(self._session.start())

    def step(self) -> None:
        """Compute the chosen token, then choose."""
        assert self._session is not None
        self._chosen = _greedy(self._session.step(self._chosen))

    def forced(self, tokens: Ids, prompt_length: int) -> Floats:
        """Logits behind the prompt and behind each later token."""
        session = self._new(tokens[:prompt_length])
        rows = [session.start(), *(session.step(each[None]) for each in tokens[prompt_length:])]
        return np.concatenate(rows)

    def _new(self, tokens: Ids) -> Session:
        return OnnxSession(self._decoder, self._embed, self._embed(tokens[None]))

    def _embed(self, ids: Ids) -> Floats:
        return self._embed_graph.run({"input_ids": ids})["inputs_embeds"].astype(np.float32)


class VisionContestant:
    """An image to the language model's embeddings.

    Args:
        encode: [1, 3, S, S] -> [1, T, H].
        size: S.
    """

    def __init__(self, encode: Callable[[Floats], Floats], size: int) -> None:
        self._encode = encode
        # No time depends on what an image shows.
        self._pixels = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)

    def turn(self) -> Mapping[str, Sequence[float]]:
        """One image."""
        started = time.perf_counter()
        self._encode(self._pixels)
        return {VISION: [time.perf_counter() - started]}

    def outputs(self, given: np.ndarray) -> Floats:
        """Pixels [N, 3, S, S] -> features [N, T, H]."""
        return np.concatenate([self._encode(image[None]) for image in given])


class FirstTokenContestant:
    """Image and question in, first token out."""

    def __init__(self, runtime: OnnxRuntime, inputs: Inputs) -> None:
        self._runtime = runtime
        self._inputs = inputs
        _ = runtime.vision_graph, runtime.embed_graph, runtime.decoder

    def turn(self) -> Mapping[str, Sequence[float]]:
        """One question."""
        started = time.perf_counter()
        _greedy(self._start())
        return {FIRST_TOKEN: [time.perf_counter() - started]}

    def outputs(self, given: np.ndarray) -> Floats:
        """Logits [1, V] of the first token, whatever is given."""
        del given
        return self._start()

    def _start(self) -> Logits:
        return _session(self._runtime, self._inputs.prompt_ids, self._inputs.pixels).start()


def main() -> None:
    """Take turns, or answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    decoder, answering = commands.add_parser("decoder"), commands.add_parser("answer")
    decoder_arguments(decoder)
    others = {name: commands.add_parser(name) for name in ("onnx-vision", "torch-vision")}
    others["first-token"] = commands.add_parser("first-token")
    for each in others.values():
        each.add_argument("--answers", type=int, required=True)
    for each in (*others.values(), answering):
        each.add_argument("--threads", type=int, required=True)
    for each in (decoder, answering, others["first-token"]):
        each.add_argument("--decoder", type=Path, required=True)
        each.add_argument("--embed", type=Path, required=True)
    for each in (others["onnx-vision"], others["first-token"], answering):
        each.add_argument("--vision", type=Path, required=True)
    for each in (others["first-token"], answering):
        each.add_argument("--bundle", type=Path, required=True, help="with the prompt's contract")
    for name in ("onnx-vision", "torch-vision"):
        others[name].add_argument("--size", type=int, required=True)
    others["torch-vision"].add_argument("--weights", type=Path, required=True)
    answering.add_argument("--image", type=Path, required=True)
    answering.add_argument("--tokens", type=int, required=True, help="of the answer")
    arguments = parser.parse_args()
    _COMMANDS[arguments.command](arguments)


def _serve_decoder(arguments: argparse.Namespace) -> None:
    decoder = OnnxDecoderContestant(arguments.decoder, arguments.embed, arguments.threads)
    serve_decoder(decoder, arguments)


def _serve_onnx_vision(arguments: argparse.Namespace) -> None:
    graph = OnnxGraph(arguments.vision, threads=arguments.threads)

    def encode(pixels: Floats) -> Floats:
        (features,) = graph.run({graph.signature.inputs[0].name: pixels}).values()
        return features.astype(np.float32, copy=False)

    serve(VisionContestant(encode, arguments.size), arguments.answers)


def _serve_torch_vision(arguments: argparse.Namespace) -> None:
    import torch

    from validation.runtimes.torch_runtime import open_torch

    torch.set_num_threads(arguments.threads)
    runtime = open_torch(arguments.weights)
    serve(VisionContestant(runtime.encode_image, arguments.size), arguments.answers)


def _serve_first_token(arguments: argparse.Namespace) -> None:
    contestant = FirstTokenContestant(_runtime(arguments), _inputs(arguments.bundle))
    serve(contestant, arguments.answers)


def _answer(arguments: argparse.Namespace) -> None:
    """As transformers.js does it: all graphs are opened first."""
    from reference.preprocess import load_image, preprocess

    inputs = _inputs(arguments.bundle)
    runtime = _runtime(arguments)
    _ = runtime.vision_graph, runtime.embed_graph, runtime.decoder
    contract = inputs.contract
    image = load_image(arguments.image)
    pixels = preprocess(image, size=contract.image_size, fit=contract.fit)
    session = _session(runtime, inputs.prompt_ids, pixels[None])
    chosen = [_greedy(session.start())]
    while len(chosen) < arguments.tokens:
        chosen.append(_greedy(session.step(chosen[-1])))
    sys.stdout.write(f"{np.concatenate(chosen).tolist()} to: {QUESTION}\n")


def _session(runtime: OnnxRuntime, prompt_ids: Ids, pixels: Floats) -> OnnxSession:
    return runtime.session(splice(runtime, prompt_ids, runtime.encode_image(pixels)))


def _runtime(arguments: argparse.Namespace) -> OnnxRuntime:
    paths = GraphPaths(
        vision_encoder=arguments.vision,
        embed_tokens=arguments.embed,
        decoder_model_merged=arguments.decoder,
    )
    return OnnxRuntime(paths, threads=arguments.threads)


def _inputs(bundle: Path) -> Inputs:
    from fastvlm_compile.bundle.manifest import read_manifest

    return inputs_of(bundle, read_manifest(bundle).contract)


def _greedy(logits: Logits) -> Ids:
    return np.asarray(logits.argmax(axis=-1), dtype=np.int64)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "decoder": _serve_decoder,
    "onnx-vision": _serve_onnx_vision,
    "torch-vision": _serve_torch_vision,
    "first-token": _serve_first_token,
    "answer": _answer,
}


if __name__ == "__main__":
    main()
