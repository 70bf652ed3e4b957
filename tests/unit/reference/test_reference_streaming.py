"""A model of which a part is read as it runs gives the bits of the whole one, and stays small."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.affine import round_to_nearest
from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.palettize import palettize
from fastvlm_compile.quantize.run import quantize_checkpoint
from fastvlm_compile.quantize.scheme import Affine, Palette
from fastvlm_compile.quantize.source import DequantizedCheckpoint, DequantizedRows
from reference.checkpoint.names import LM_HEAD
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.decoding import GenerationSettings
from reference.fastvlm import FastVLM
from reference.generation import generate
from reference.loading import build, load
from reference.lockstep import greedy_together, logits_together, through_layers
from reference.qwen2 import Cache
from reference.session import TorchSession
from reference.weights import Rows

MakeCheckpoint = Callable[..., Path]
SIZES = {
    "num_hidden_layers": 5,
    "hidden_size": 192,
    "intermediate_size": 328,
    "num_attention_heads": 6,
}
LENGTHS = (9, 23, 1)
GREEDY = GenerationSettings(max_new_tokens=6)


@pytest.fixture(params=["apple", "transformers"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(make_checkpoint: MakeCheckpoint, layout: str, request: pytest.FixtureRequest) -> Path:
    return make_checkpoint(layout=layout, tie_word_embeddings=request.param, **SIZES)


def prompts_of(model: FastVLM) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    vocabulary = model.config.text.vocab_size
    ids = [torch.randint(0, vocabulary, (1, each), generator=generator) for each in LENGTHS]
    return [model.embed(each) for each in ids]


def same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit: `torch.equal` takes -0 for 0."""
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def assert_same_caches(one: Cache, other: Cache) -> None:
    for mine, yours in zip(one, other, strict=True):
        assert same(mine.key, yours.key)
        assert same(mine.value, yours.value)


def layer_bytes(model: FastVLM) -> int:
    return sum(each.numel() * 4 for each in model.language.layers[0].parameters())


@torch.inference_mode()
def assert_same_model(streamed: FastVLM, whole: FastVLM) -> None:
    for mine, yours in zip(prompts_of(streamed), prompts_of(whole), strict=True):
        assert same(mine, yours)
        found, expected = streamed.language(mine), whole.language(yours)
        assert same(found[0], expected[0])
        assert_same_caches(found[1], expected[1])
        next_found = streamed.language(mine[:, :1], cache=found[1])
        next_expected = whole.language(yours[:, :1], cache=expected[1])
        assert same(next_found[0], next_expected[0])
        assert_same_caches(next_found[1], next_expected[1])
        for settings in (GREEDY, GenerationSettings(max_new_tokens=4, num_beams=3)):
            answers = [
                generate(TorchSession(model.language, mine), settings).token_ids
                for model in (streamed, whole)
            ]
            assert answers[0] == answers[1]


@pytest.mark.parametrize("layers", [0, 2.5, 100])
def test_no_budget_changes_a_bit(folder: Path, layers: float) -> None:
    whole = load(folder)
    streamed = load(folder, resident_bytes=int(layers * layer_bytes(whole)))
    assert_same_model(streamed, whole)


def test_a_float32_checkpoint_gives_the_same_bits_from_memory_and_from_its_file(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    path = make_checkpoint(**SIZES) / "model.safetensors"
    tensors = {name: each.float() for name, each in load_file(path).items()}
    # An odd length of the header's text puts the tensors where no allocator would.
    save_file(tensors, path, metadata={"note": "x" * 37})
    assert_same_model(load(path.parent, resident_bytes=0), load(path.parent))


def test_quantized_tensors_are_dequantized_as_they_run(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    schemes = (
        Choice(scheme=Affine(bits=4, block_size=32, symmetric=True), method="round_to_nearest"),
        Choice(scheme=Affine(bits=8, block_size=0, symmetric=False), method="round_to_nearest"),
        Choice(scheme=Palette(bits=4, group_size=8), method="clustering"),
        Choice(scheme=Palette(bits=3, group_size=0, channel_scale=True), method="clustering"),
    )
    names = [
        name
        for name, info in checkpoint.tensors.items()
        if "layers." in name or name.endswith(("embed_tokens.weight", LM_HEAD))
        if len(info.shape) == 2
    ]
    choices = {name: schemes[number % len(schemes)] for number, name in enumerate(names)}
    quantized = quantize_checkpoint(checkpoint, choices, None, tmp_path / "q", silent)
    weights = DequantizedCheckpoint(checkpoint=checkpoint, quantized=quantized)
    assert_same_model(build(weights, resident_bytes=0), build(weights))


@pytest.mark.parametrize("group_size", [0, 1, 8])
def test_rows_of_a_quantized_tensor_are_those_of_the_whole(group_size: int) -> None:
    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)).numpy()
    affine = round_to_nearest(weight, Affine(bits=4, block_size=32, symmetric=False))
    palette = Palette(bits=4, group_size=group_size, channel_scale=group_size == 8)
    for tensor in (affine, palettize(weight, palette, None)):
        whole, rows = torch.from_numpy(tensor.dequantize()), DequantizedRows(tensor)
        assert same(rows[slice(5, 21)], whole[5:21])
        ids = torch.tensor([[3, 47], [0, 3]])
        assert same(rows[ids], whole[ids])


def test_one_module_beyond_the_budget_is_there_at_a_time(folder: Path) -> None:
    model = load(folder, resident_bytes=layer_bytes(load(folder)))
    parts = [*model.language.layers, model.language.lm_head]
    there: list[list[int]] = []

    def note(module: torch.nn.Module, args: tuple[object, ...]) -> None:
        del module, args
        there.append([number for number, each in enumerate(parts) if is_there(each)])

    for part in parts:
        part.register_forward_pre_hook(note)
    assert [is_there(each) for each in parts] == [True, *[False] * 5]
    model.language(prompts_of(model)[0])
    assert there == [[0], *([0, number] for number in range(1, 6))]
    memory = {storage_of(part) for part in parts if is_there(part)}
    model.language(prompts_of(model)[1])
    assert {storage_of(part) for part in parts if is_there(part)} == memory, "the same is used"


def is_there(part: torch.nn.Module) -> bool:
    return not any(each.is_meta for each in part.parameters())


def storage_of(part: torch.nn.Module) -> int:
    return next(part.parameters()).untyped_storage().data_ptr()


@dataclass(kw_only=True)
class CountingWeights:
    """A checkpoint that counts how often each tensor is opened."""

    checkpoint: Checkpoint
    opened: list[str] = field(default_factory=list)

    @property
    def config(self):
        return self.checkpoint.config

    @property
    def tensors(self):
        return self.checkpoint.tensors

    @property
    def tied(self) -> bool:
        return self.checkpoint.tied

    def read(self, name: str) -> Tensor:
        return self.checkpoint.read(name)

    def rows(self, name: str) -> Rows:
        self.opened.append(name)
        return self.checkpoint.rows(name)


def test_sequences_in_lockstep_are_those_alone_and_read_every_layer_once(folder: Path) -> None:
    weights = CountingWeights(checkpoint=open_checkpoint(folder))
    streamed, whole = build(weights, resident_bytes=0), load(folder)
    prompts = prompts_of(whole)
    weights.opened.clear()
    caches: list[Cache] = [[] for _ in prompts]
    states = through_layers(streamed.language, prompts, caches)
    assert len(weights.opened) == len(set(weights.opened)) == 5 * 12
    with torch.inference_mode():
        for state, prompt, cache in zip(states, prompts, caches, strict=True):
            logits, expected = whole.language(prompt)
            assert same(whole.language.lm_head(whole.language.norm(state)), logits)
            assert_same_caches(cache, expected)
    weights.opened.clear()
    rows = list(logits_together(streamed.language, prompts))
    assert len(weights.opened) == len(set(weights.opened)) == 5 * 12 + 1
    with torch.inference_mode():
        for found, prompt in zip(rows, prompts, strict=True):
            assert same(found, whole.language(prompt)[0][0])


def test_greedy_answers_in_lockstep_are_those_of_generate(folder: Path) -> None:
    streamed, whole = load(folder, resident_bytes=0), load(folder)
    prompts = prompts_of(whole)
    alone = [generate(TorchSession(whole.language, each), GREEDY).token_ids for each in prompts]
    assert greedy_together(streamed.language, prompts, GREEDY) == alone
    # Ended by a token that one of them chooses on the way, and cut where the words end.
    last = GenerationSettings(max_new_tokens=6, eos_token_ids=(alone[1][2],), vocab_limit=300)
    alone = [generate(TorchSession(whole.language, each), last).token_ids for each in prompts]
    assert len(set(map(len, alone))) > 1, "they must end at different times"
    assert greedy_together(streamed.language, prompts, last) == alone
    many = list(chain.from_iterable([prompts] * 7))
    assert greedy_together(streamed.language, many, last) == alone * 7
