"""Decoders of one model after the same prompts: time in onnxruntime, distance to the reference.

    python -m benchmarks.int4_decode reference --weights DIR --out DIR
    python -m benchmarks.int4_decode compare --weights DIR --out DIR --graphs FILE --threads 2

`reference` writes token ids and the float32 logits of the PyTorch reference; `compare` feeds the
same tokens to every graph, taking turns, so that other work on the machine meets all of them.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from reference.config import load_config
from validation.logit_metrics import logit_metrics
from validation.runtimes.onnx_graph import OnnxGraph

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

NUM_SEQUENCES = 4
PROMPT_LENGTH = 64
NUM_STEPS = 20
FIRST_SCENE = 7_000
"""Held out, and none of those that goldens are taken from."""
TOKENS, LOGITS = "tokens.npy", "logits.npy"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What one decoder did.

    Attributes:
        name: of the candidate.
        prefill_s: of one prompt, the median over sequences.
        tokens_per_s: of decoding, from the median step.
        slowest_step_s: how far a step strayed.
        kl_mean: KL(reference || decoder) after the prompt and each step, nats.
        kl_max: the largest of them.
        top1_agreement: share of positions with the same top token.
    """

    name: str
    prefill_s: float
    tokens_per_s: float
    slowest_step_s: float
    kl_mean: float
    kl_max: float
    top1_agreement: float


@dataclass(kw_only=True)
class Candidate:
    """An open decoder, with a graph for its embedding where it does not take token ids itself."""

    name: str
    decoder: OnnxGraph
    embed: OnnxGraph | None
    head_dim: int
    """Of the cache: not every graph says."""
    prefills_s: list[float] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)
    logits: list[Floats] = field(default_factory=list)
    """Of each sequence, [1 + steps, V]."""

    def decode(self, tokens: Ids) -> None:
        """Feed the prompt, then the rest of `tokens` [L] one after another."""
        cache = {
            port.name: np.zeros((1, int(port.dims[1]), 0, self.head_dim), dtype=np.float32)
            for port in self.decoder.signature.inputs
            if port.name.startswith("past_key_values.")
        }
        rows: list[Floats] = []
        pieces = np.split(tokens, range(PROMPT_LENGTH, len(tokens)))
        for piece in pieces:
            began_s = time.perf_counter()
            outputs = self.decoder.run({**self._feeds(piece, cache), **cache})
            (self.steps_s if rows else self.prefills_s).append(time.perf_counter() - began_s)
            cache = {name: outputs[name.replace("past_key_values", "present")] for name in cache}
            rows.append(outputs["logits"][0, -1].astype(np.float32))
        self.logits.append(np.stack(rows))

    def _feeds(self, tokens: Ids, cache: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the decoder asks for beside its cache, as far as it does."""
        past = next(iter(cache.values())).shape[2]
        feeds: dict[str, np.ndarray] = {
            "attention_mask": np.ones((1, past + len(tokens)), dtype=np.int64),
            "position_ids": np.arange(past, past + len(tokens), dtype=np.int64)[None],
        }
        if self.embed is None:
            feeds["input_ids"] = tokens[None]
        else:
            feeds["inputs_embeds"] = self.embed.run({"input_ids": tokens[None]})["inputs_embeds"]
        wanted = {port.name for port in self.decoder.signature.inputs}
        return {name: value for name, value in feeds.items() if name in wanted}

    def forget(self) -> None:
        """Drop what a warm-up left."""
        for kept in (self.prefills_s, self.steps_s, self.logits):
            kept.clear()


def main() -> None:
    """Write the reference, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("reference", "compare"))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--graphs", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.step == "reference":
        write_reference(arguments.weights, arguments.out)
        return
    listed = json.loads(arguments.graphs.read_text(encoding="utf-8"))
    head_dim = load_config(arguments.weights).text.head_dim
    found = compare(listed, arguments.out, head_dim=head_dim, threads=arguments.threads)
    text = json.dumps([asdict(decoded) for decoded in found], indent=2)
    (arguments.out / "decoded.json").write_text(text, encoding="utf-8")


def write_reference(weights: Path, out: Path) -> None:
    """Token ids [S, L] and reference logits [S, 1 + steps, V], one decoder layer in memory."""
    import torch

    from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
    from reference.checkpoint.tensors import open_checkpoint
    from reference.qwen2 import DecoderLayer, RMSNorm, attention_bias, rotary_embedding

    checkpoint = open_checkpoint(weights)
    text = checkpoint.config.text
    tokens = sample_tokens(weights)
    with torch.inference_mode():
        x = checkpoint.read(EMBED_TOKENS)[torch.from_numpy(tokens)].float()
        length = tokens.shape[1]
        rotary = rotary_embedding(torch.arange(length)[None], text)
        bias = attention_bias(torch.ones((1, length), dtype=torch.long), length, x.dtype)
        for index in range(text.num_hidden_layers):
            with torch.device("meta"):
                layer = DecoderLayer(text)
            prefix = f"model.layers.{index}."
            state = {name: checkpoint.read(prefix + name).float() for name in layer.state_dict()}
            layer.load_state_dict(state, strict=True, assign=True)
            x, _ = layer(x, rotary, bias, None)
        norm = RMSNorm(text.hidden_size, text.rms_norm_eps)
        norm.weight = torch.nn.Parameter(checkpoint.read("model.norm.weight").float())
        head = checkpoint.read(EMBED_TOKENS if checkpoint.tied else LM_HEAD).float()
        logits = norm(x[:, PROMPT_LENGTH - 1 :]) @ head.T
    np.save(out / TOKENS, tokens)
    np.save(out / LOGITS, logits.numpy())


def sample_tokens(weights: Path) -> Ids:
    """[S, L]: S stretches of questions about scenes, each with its answer."""
    from reference.scenes.scene import held_out
    from reference.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(weights)
    length = PROMPT_LENGTH + NUM_STEPS
    ids: list[int] = []
    scene = FIRST_SCENE
    while len(ids) < NUM_SEQUENCES * length:
        for question in held_out(scene).questions:
            ids += tokenizer.encode(f"{question.text} {question.answer} ")
        scene += 1
    return np.array(ids[: NUM_SEQUENCES * length], dtype=np.int64).reshape(NUM_SEQUENCES, length)


def compare(
    graphs: Mapping[str, Mapping[str, str]], out: Path, *, head_dim: int, threads: int
) -> list[Decoded]:
    """Decode the tokens in `out` with every graph and compare with the logits there.

    Args:
        graphs: name -> `decoder` and, where it takes embeddings, `embed`: paths.
        out: what `write_reference` filled.
        head_dim: channels of an attention head.
        threads: inside one operator.
    """
    tokens: Ids = np.load(out / TOKENS)
    reference: Floats = np.load(out / LOGITS)
    candidates = [
        Candidate(
            name=name,
            decoder=OnnxGraph(Path(paths["decoder"]), threads=threads),
            embed=OnnxGraph(Path(paths["embed"]), threads=threads) if "embed" in paths else None,
            head_dim=head_dim,
        )
        for name, paths in graphs.items()
    ]
    for candidate in candidates:
        candidate.decode(tokens[0])
        candidate.forget()
    for sequence in tokens:
        for candidate in candidates:
            candidate.decode(sequence)
    return [_judged(candidate, reference) for candidate in candidates]


def _judged(candidate: Candidate, reference: Floats) -> Decoded:
    metrics = logit_metrics(reference, np.stack(candidate.logits), vocab_limit=reference.shape[-1])
    return Decoded(
        name=candidate.name,
        prefill_s=median(candidate.prefills_s),
        tokens_per_s=1 / median(candidate.steps_s),
        slowest_step_s=max(candidate.steps_s),
        kl_mean=metrics.kl_mean,
        kl_max=metrics.kl_max,
        top1_agreement=metrics.top1_agreement,
    )


if __name__ == "__main__":
    main()
