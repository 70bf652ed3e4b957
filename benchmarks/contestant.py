"""The side of a contestant: a process that does one thing whenever it is its turn.

Runs in our environment and in those of the peers, so it needs numpy alone. A request is a JSON
object on a line of stdin, its answer one on the descriptor that `--answers` names: stdout and
stderr are whatever the libraries say.

- `{"do": "turn"}` -> `{"turn": {phase: [seconds, ...]}}`;
- `{"do": "outputs", "given": FILE.npy, "out": FILE.npy}` -> `{"outputs": true}`;
- `{"do": "end"}` -> `{"peak_bytes": resident bytes at their peak}`, and the process ends.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fastvlm_compile.latency.memory import peak_memory_bytes

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

PREFILL, DECODE, VISION, FIRST_TOKEN = "prefill", "decode", "vision", "first_token"


class Contestant(Protocol):
    """What takes turns."""

    def turn(self) -> Mapping[str, Sequence[float]]:
        """Do it once; seconds by phase."""
        ...

    def outputs(self, given: np.ndarray) -> Floats:
        """What it computes from `given`, to be compared with what the others do."""
        ...


class Decoder(Protocol):
    """A language model with its cache."""

    def begin(self, tokens: Ids) -> None:
        """Forget all, take in a prompt [L] and choose the token behind it."""
        ...

    def step(self) -> None:
        """Take in the chosen token and choose the next."""
        ...

    def forced(self, tokens: Ids, prompt_length: int) -> Floats:
        """Logits [1 + L - prompt length, V] behind the prompt and behind each later token."""
        ...


class DecoderContestant:
    """A prompt at once, then tokens one by one.

    Args:
        decoder: the model.
        tokens: the prompt, [L].
        num_steps: behind each prompt.
        prompt_length: of the sequences that `outputs` is given.
    """

    def __init__(self, decoder: Decoder, tokens: Ids, num_steps: int, prompt_length: int) -> None:
        self._decoder = decoder
        self._tokens = tokens
        self._num_steps = num_steps
        self._prompt_length = prompt_length

    def turn(self) -> Mapping[str, Sequence[float]]:
        """One prompt and its steps."""
        started = time.perf_counter()
        self._decoder.begin(self._tokens)
        prefill_s = time.perf_counter() - started
        steps_s = []
        for _ in range(self._num_steps):
            started = time.perf_counter()
            self._decoder.step()
            steps_s.append(time.perf_counter() - started)
        return {PREFILL: [prefill_s], DECODE: steps_s}

    def outputs(self, given: np.ndarray) -> Floats:
        """Tokens [S, L] -> logits [S, 1 + L - prompt length, V]."""
        return np.stack([self._decoder.forced(tokens, self._prompt_length) for tokens in given])


def decoder_arguments(parser: argparse.ArgumentParser) -> None:
    """What every contestant with a decoder is told."""
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="the prompt, int64 [L] as .npy")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--prompt-length", type=int, required=True, help="of what is compared")
    parser.add_argument("--answers", type=int, required=True, help="descriptor")


def serve_decoder(decoder: Decoder, arguments: argparse.Namespace) -> None:
    """`serve` for a decoder."""
    tokens: Ids = np.load(arguments.tokens)
    contestant = DecoderContestant(
        decoder, tokens, arguments.steps, prompt_length=arguments.prompt_length
    )
    serve(contestant, arguments.answers)


def serve(contestant: Contestant, descriptor: int) -> None:
    """Answer requests until the last."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no keywords
    with os.fdopen(descriptor, "w", encoding="utf-8", buffering=1) as answers:

        def tell(answer: object) -> None:
            answers.write(json.dumps(answer) + "\n")

        tell({"ready": True})
        for line in sys.stdin:
            request = json.loads(line)
            match request["do"]:
                case "turn":
                    tell({"turn": {name: list(each) for name, each in contestant.turn().items()}})
                case "outputs":
                    np.save(request["out"], contestant.outputs(np.load(request["given"])))
                    tell({"outputs": True})
                case "end":
                    tell({"peak_bytes": peak_memory_bytes()})
                    break
                case other:
                    raise ValueError(f"nothing is known of {other!r}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries with threads of their own may hang in an orderly exit
