"""Who meets whom, and what they are given."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.contestant import Floats, Ids
from benchmarks.int4_decode import LOGITS, PROMPT_LENGTH, TOKENS, write_reference
from benchmarks.latency_peers import GENAI, LLAMA, LanguagePeers, PlainGraphs
from benchmarks.referee import Entry, Timed, hold_contest, open_players
from benchmarks.watch import Watched, watch
from fastvlm_compile.bundle.manifest import InputContract
from fastvlm_compile.bundle.opening import graphs_of
from fastvlm_compile.latency.inputs import QUESTION
from validation.logit_metrics import LogitMetrics, logit_metrics
from validation.metrics import tensor_metrics

OUR_INT4 = ("int4", "int4-fast")
GENAI_NAME, LLAMA_NAME = "genai builder int4", "llama.cpp Q4_0"
FLOAT_VISION, INT8_VISION = "ours, fp32", "ours, int8"
PLAIN_VISION, TORCH_VISION = "plain export in onnxruntime", "torch eager"
PLAIN_BUNDLE = "transformers.js-style bundle"
ANSWER_TOKENS = 16
"""Of an answer whose memory is watched."""
_SEED = 6


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contests share.

    Attributes:
        bundle: what is measured, with the targets onnx and torch.
        checkpoint: its weights with the tokenizer beside them.
        name, contract: of the bundle.
        folder: where things go that nobody keeps.
        threads: of every contestant.
        num_rounds: turns of each that count.
        num_tokens: of the prompt.
        num_steps: behind each prompt.
    """

    bundle: Path
    name: str
    checkpoint: Path
    contract: InputContract
    folder: Path
    threads: int
    num_rounds: int
    num_tokens: int
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a whole process took, once for each time it was run."""

    name: str
    resident_bytes: tuple[int, ...]
    """Mapped files included, which the system can drop."""
    anonymous_bytes: tuple[int, ...]
    """Allocated: the machine must have this much."""


def ours(variant: str) -> str:
    """The contestant's name."""
    return f"ours, {variant}"


def language(
    setting: Setting, peers: LanguagePeers, vocab_limit: int
) -> tuple[tuple[Timed, ...], Mapping[str, LogitMetrics]]:
    """Prefill and decoding of every 4-bit form, and its distance to the float32 reference."""
    write_reference(setting.checkpoint, setting.folder)
    sequences, reference = (np.load(setting.folder / name) for name in (TOKENS, LOGITS))
    prompt = setting.folder / "prompt.npy"
    random = np.random.default_rng(_SEED)
    np.save(prompt, random.integers(0, vocab_limit, setting.num_tokens, dtype=np.int64))
    entries = _decoders(setting, peers, prompt, sequences)
    with open_players(entries, setting.threads) as players:
        distances = {
            player.entry.name: logit_metrics(
                reference, player.outputs(sequences), vocab_limit=vocab_limit
            )
            for player in players
        }
        return hold_contest(players, setting.num_rounds), distances


def vision(
    setting: Setting, plain: PlainGraphs, images: Floats
) -> tuple[tuple[Timed, ...], Mapping[str, float]]:
    """The tower and projector in every form, and the PSNR of its features, dB.

    Args:
        setting: of the contest.
        plain: the graph exported as it comes.
        images: [N, 3, S, S] whose features are compared with PyTorch's.
    """
    with open_players(_towers(setting, plain), setting.threads) as players:
        features = {player.entry.name: player.outputs(images) for player in players}
        return hold_contest(players, setting.num_rounds), psnr_db(features)


def psnr_of_ours(setting: Setting, images: Floats) -> Mapping[str, float]:
    """As `vision` has it, of our graphs alone and without a contest."""
    with open_players(_towers(setting, None), setting.threads) as players:
        return psnr_db({player.entry.name: player.outputs(images) for player in players})


def psnr_db(features: Mapping[str, Floats]) -> dict[str, float]:
    """Of all but PyTorch's, which are the reference: the worst image of each."""
    reference = features[TORCH_VISION]
    return {
        name: min(
            tensor_metrics(wanted, got).psnr_db
            for wanted, got in zip(reference, found, strict=True)
        )
        for name, found in features.items()
        if name != TORCH_VISION
    }


def first_token(setting: Setting, plain: PlainGraphs) -> tuple[Timed, ...]:
    """Image and question in, first token out."""
    entries = [
        Entry(
            name=name,
            command=(
                *_our_command("first-token", setting.threads),
                *("--bundle", str(setting.bundle), *graphs),
            ),
        )
        for name, graphs in _whole_models(setting, plain).items()
    ]
    with open_players(entries, setting.threads) as players:
        return hold_contest(players, setting.num_rounds)


def memory(setting: Setting, plain: PlainGraphs, image: Path) -> tuple[Memory, ...]:
    """`generate` of ours and an answer of the plain bundle, in turns.

    Raises:
        RuntimeError: one of them fails.
    """
    generate = (sys.executable, "-m", "fastvlm_compile", "generate", str(setting.bundle))
    question = ("--image", str(image), "--prompt", QUESTION)
    commands: dict[str, tuple[str, ...]] = {
        ours(variant): (
            *(*generate, "--variant", variant, *question),
            *("--max-new-tokens", str(ANSWER_TOKENS)),
        )
        for variant in OUR_INT4
    }
    commands[PLAIN_BUNDLE] = (
        *_our_command("answer", setting.threads),
        *("--bundle", str(setting.bundle), *_whole_models(setting, plain)[PLAIN_BUNDLE]),
        *("--image", str(image), "--tokens", str(ANSWER_TOKENS)),
    )
    rounds: list[dict[str, Watched]] = [
        {name: watch(command) for name, command in commands.items()}
        for _ in range(min(3, setting.num_rounds))
    ]
    return tuple(
        Memory(
            name=name,
            resident_bytes=tuple(each[name].peak_resident_bytes for each in rounds),
            anonymous_bytes=tuple(each[name].peak_anonymous_bytes for each in rounds),
        )
        for name in commands
    )


def _decoders(setting: Setting, peers: LanguagePeers, prompt: Path, sequences: Ids) -> list[Entry]:
    shared = (
        *("--threads", str(setting.threads), "--tokens", str(prompt)),
        *("--steps", str(setting.num_steps), "--prompt-length", str(PROMPT_LENGTH)),
    )
    # The one token more is chosen and never taken in.
    longest = max(setting.num_tokens + setting.num_steps + 1, sequences.shape[1])
    positions = ("--positions", str(longest))
    entries = []
    for variant in OUR_INT4:
        paths = graphs_of(setting.bundle, variant)
        graphs = ("--decoder", str(paths.decoder_model_merged), "--embed", str(paths.embed_tokens))
        ours_in = (sys.executable, "-m", "benchmarks.latency_ours", "decoder")
        entries.append(Entry(name=ours(variant), command=(*ours_in, *graphs, *shared)))
    theirs = {
        GENAI_NAME: (GENAI, "benchmarks.peer_genai", peers.genai),
        LLAMA_NAME: (LLAMA, "benchmarks.peer_llama", peers.llama),
    }
    for name, (python, module, model) in theirs.items():
        command = (str(python), "-m", module, "--model", str(model), *positions, *shared)
        entries.append(Entry(name=name, command=command))
    return entries


def _towers(setting: Setting, plain: PlainGraphs | None) -> list[Entry]:
    graphs = {
        FLOAT_VISION: graphs_of(setting.bundle, "fp32").vision_encoder,
        INT8_VISION: graphs_of(setting.bundle, "int8").vision_encoder,
    }
    if plain is not None:
        graphs[PLAIN_VISION] = plain.vision
    size = ("--size", str(setting.contract.image_size))
    onnx = (*_our_command("onnx-vision", setting.threads), *size, "--vision")
    entries = [Entry(name=name, command=(*onnx, str(path))) for name, path in graphs.items()]
    torch = (*_our_command("torch-vision", setting.threads), *size)
    weights = ("--weights", str(setting.checkpoint))
    return [*entries, Entry(name=TORCH_VISION, command=(*torch, *weights))]


def _whole_models(setting: Setting, plain: PlainGraphs) -> dict[str, tuple[str, ...]]:
    """Graphs of the whole model, as options, by contestant."""
    found: dict[str, tuple[str, ...]] = {}
    for variant in OUR_INT4:
        paths = graphs_of(setting.bundle, variant)
        found[ours(variant)] = (
            *("--vision", str(paths.vision_encoder), "--embed", str(paths.embed_tokens)),
            *("--decoder", str(paths.decoder_model_merged)),
        )
    found[PLAIN_BUNDLE] = (
        *("--vision", str(plain.vision), "--embed", str(plain.embed)),
        *("--decoder", str(plain.decoder)),
    )
    return found


def _our_command(command: str, threads: int) -> tuple[str, ...]:
    module = "benchmarks.latency_ours"
    return (sys.executable, "-m", module, command, "--threads", str(threads))
