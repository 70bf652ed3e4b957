"""The driver: what is quantized, how little is in memory, and how it goes on after a kill."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from quantize_run_helpers import (
    INT4,
    INT8,
    Interrupted,
    KillAfter,
    choices_of,
    contents,
    make_calibration,
    watched,
)

from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.affine import round_to_nearest
from fastvlm_compile.quantize.calibration import Calibration
from fastvlm_compile.quantize.choice import Choice
from fastvlm_compile.quantize.methods import ChoiceError, relative_error
from fastvlm_compile.quantize.run import quantize_checkpoint
from fastvlm_compile.quantize.scheme import Affine, Palette, SchemeError
from fastvlm_compile.quantize.weights_file import open_quantized
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD, VISION_PREFIX
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.errors import CheckpointError, UserError

QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def calibration(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return make_calibration(random_checkpoint, tmp_path_factory.mktemp("calibration") / "made")


@pytest.fixture
def checkpoint(random_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(random_checkpoint)


def test_every_chosen_tensor_and_no_other_is_there(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path
) -> None:
    choices = choices_of(checkpoint, "gptq")
    told: list[tuple[int, int, str]] = []
    quantized = quantize_checkpoint(
        checkpoint, choices, calibration, tmp_path, lambda *event: told.append(event)
    )
    assert quantized.entries.keys() == choices.keys()
    for name, entry in quantized.entries.items():
        tensor = quantized.read(name)
        weight = checkpoint.read(name).float().numpy()
        assert (entry.scheme, entry.method) == (choices[name].scheme, choices[name].method)
        assert entry.shape == tensor.shape == weight.shape
        assert entry.size_bytes == tensor.size_bytes
        expected = np.linalg.norm(tensor.dequantize() - weight) / np.linalg.norm(weight)
        assert entry.relative_error == pytest.approx(expected, rel=1e-4)
        assert 0 < entry.relative_error < (0.02 if entry.scheme == INT8 else 0.4), name
    done = [event[0] for event in told]
    assert done == sorted(done)
    assert told[-1] == (len(choices), len(choices), "done")
    assert {event[2] for event in told} > set(choices)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_without_calibration_the_method_sees_the_weight_alone(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    choices = {QUERY: Choice(scheme=INT4, method="round_to_nearest")}
    found = quantize_checkpoint(checkpoint, choices, None, tmp_path, silent).read(QUERY)
    expected = round_to_nearest(checkpoint.read(QUERY).float().numpy(), INT4)
    assert np.array_equal(found.codes, expected.codes)
    assert np.array_equal(found.scales, expected.scales)


def test_search_alone_runs_nothing_of_the_model(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path
) -> None:
    told: list[str] = []
    choices = choices_of(checkpoint, "search")
    given = quantize_checkpoint(
        checkpoint, choices, calibration, tmp_path / "given", lambda _d, _t, what: told.append(what)
    )
    assert not [what for what in told if "calibrat" in what]
    quantize_checkpoint(checkpoint, choices, None, tmp_path / "none", silent)
    assert contents(tmp_path / "given") == contents(tmp_path / "none")
    assert given.entries


def test_search_weighs_by_inputs_that_were_gathered_for_others(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path
) -> None:
    choices = {DOWN: Choice(scheme=INT4, method="search")}
    alone = quantize_checkpoint(checkpoint, choices, calibration, tmp_path / "alone", silent)
    choices[QUERY] = Choice(scheme=INT4, method="gptq")
    both = quantize_checkpoint(checkpoint, choices, calibration, tmp_path / "both", silent)
    assert not np.array_equal(alone.read(DOWN).codes, both.read(DOWN).codes)


def test_a_layer_sees_what_the_quantized_layers_before_it_give(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path
) -> None:
    last = {DOWN: Choice(scheme=INT4, method="gptq")}
    found = []
    for bits in (4, 8):
        first = {QUERY: Choice(scheme=_int(bits), method="round_to_nearest")}
        out = tmp_path / str(bits)
        found.append(quantize_checkpoint(checkpoint, first | last, calibration, out, silent))
    assert not np.array_equal(found[0].read(DOWN).codes, found[1].read(DOWN).codes)
    alone = quantize_checkpoint(checkpoint, last, calibration, tmp_path / "alone", silent)
    again = quantize_checkpoint(checkpoint, last, calibration, tmp_path / "again", silent)
    assert np.array_equal(alone.read(DOWN).codes, again.read(DOWN).codes)


@pytest.mark.parametrize("doubled", [False, True])
def test_a_tied_head_is_quantized_once_as_the_embedding(
    make_checkpoint: Callable[..., Path], tmp_path: Path, doubled: bool
) -> None:
    weights = make_checkpoint(tie_word_embeddings=True)
    if doubled:
        _store_the_head_too(weights)
    checkpoint = open_checkpoint(weights)
    assert checkpoint.tied
    calibration = make_calibration(weights, tmp_path / "calibration")
    choices = choices_of(checkpoint, "gptq")
    quantized = quantize_checkpoint(checkpoint, choices, calibration, tmp_path / "out", silent)
    assert LM_HEAD not in quantized.entries
    # Its importance is that of the head's inputs, which the search alone does not know.
    embedding = {EMBED_TOKENS: choices[EMBED_TOKENS]}
    alone = quantize_checkpoint(checkpoint, embedding, calibration, tmp_path / "alone", silent)
    codes = quantized.read(EMBED_TOKENS).codes
    assert not np.array_equal(codes, alone.read(EMBED_TOKENS).codes)


def test_without_inputs_one_tensor_is_read_at_a_time(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    source = watched(checkpoint)
    choices = choices_of(checkpoint, "round_to_nearest")
    quantize_checkpoint(source, choices, None, tmp_path, silent)
    assert sorted(source.reads) == sorted(choices)
    largest = max(4 * _count(info.shape) for info in checkpoint.tensors.values())
    assert max(source.peaks) <= largest


def test_with_inputs_the_tower_or_one_layer_is_read_at_a_time(
    checkpoint: Checkpoint, calibration: Calibration, tmp_path: Path
) -> None:
    source = watched(checkpoint)
    quantize_checkpoint(source, choices_of(checkpoint, "gptq"), calibration, tmp_path, silent)
    sizes = {name: 4 * _count(info.shape) for name, info in checkpoint.tensors.items()}
    layer = sum(size for name, size in sizes.items() if name.startswith("model.layers.0."))
    tower = sum(size for name, size in sizes.items() if name.startswith(VISION_PREFIX))
    largest = max(sizes.values())
    of_layers = [
        peak
        for name, peak in zip(source.reads, source.peaks, strict=True)
        if name.startswith("model.layers.")
    ]
    assert max(of_layers) <= layer + largest
    assert max(source.peaks) <= tower + largest
    assert 2 * layer + largest < sum(sizes.values()) - tower, "the bound must mean something"


@pytest.mark.parametrize("count", [0, 5, 24, 33, 41])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    checkpoint: Checkpoint,
    calibration: Calibration,
    whole_run: dict[str, bytes],
    tmp_path: Path,
    count: int,
) -> None:
    choices = choices_of(checkpoint, "gptq")
    assert count < len(choices)
    with pytest.raises(Interrupted):
        quantize_checkpoint(checkpoint, choices, calibration, tmp_path, KillAfter(count))
    assert "quantized.json" not in contents_of_files(tmp_path)
    (tmp_path / ".half.safetensors.partial").write_bytes(b"what a kill leaves")
    quantized: list[str] = []
    quantize_checkpoint(
        checkpoint, choices, calibration, tmp_path, lambda _d, _t, what: quantized.append(what)
    )
    assert len(set(quantized) & set(choices)) == len(choices) - count
    assert contents(tmp_path) == whole_run


@pytest.fixture(scope="module")
def whole_run(
    random_checkpoint: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    checkpoint = open_checkpoint(random_checkpoint)
    out = tmp_path_factory.mktemp("whole")
    quantize_checkpoint(checkpoint, choices_of(checkpoint, "gptq"), calibration, out, silent)
    return contents(out)


def test_what_was_made_otherwise_is_not_taken(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Files of another choice, another checkpoint, and damaged ones."""
    one = {
        QUERY: Choice(scheme=INT4, method="round_to_nearest"),
        DOWN: Choice(scheme=INT4, method="round_to_nearest"),
        LM_HEAD: Choice(scheme=INT4, method="round_to_nearest"),
    }
    other = one | {QUERY: Choice(scheme=INT4, method="search")}
    expected = tmp_path / "expected"
    quantize_checkpoint(checkpoint, other, None, expected, silent)
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        quantize_checkpoint(checkpoint, one, None, out, KillAfter(2))
    damaged = out / f"{DOWN}.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    source = watched(checkpoint)
    quantize_checkpoint(source, other, None, out, silent)
    assert sorted(source.reads) == sorted(other), "nothing of it could be kept"
    assert contents(out) == contents(expected)


def test_a_record_of_codes_that_were_written_over_is_not_believed(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    plain = {name: Choice(scheme=INT4, method="round_to_nearest") for name in (QUERY, DOWN)}
    searched = {name: Choice(scheme=INT4, method="search") for name in (QUERY, DOWN)}
    for choices in (plain, searched):
        with pytest.raises(Interrupted):
            quantize_checkpoint(checkpoint, choices, None, tmp_path / "out", KillAfter(1))
    quantize_checkpoint(checkpoint, plain, None, tmp_path / "out", silent)
    quantize_checkpoint(checkpoint, plain, None, tmp_path / "expected", silent)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_another_checkpoint_is_not_taken_for_this_one(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    choices = {name: Choice(scheme=INT4, method="round_to_nearest") for name in (QUERY, DOWN)}
    old, new = (open_checkpoint(make_checkpoint(name=str(i), seed=i)) for i in (0, 1))
    with pytest.raises(Interrupted):
        quantize_checkpoint(old, choices, None, tmp_path / "out", KillAfter(1))
    quantize_checkpoint(new, choices, None, tmp_path / "out", silent)
    quantize_checkpoint(new, choices, None, tmp_path / "expected", silent)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


@pytest.mark.parametrize(
    ("name", "choice", "error"),
    [
        (
            QUERY,
            Choice(scheme=INT4, method="gptq"),
            ChoiceError("gptq needs calibration inputs"),
        ),
        (
            EMBED_TOKENS,
            Choice(scheme=INT4, method="gptq"),
            ChoiceError("not gathered for embedding"),
        ),
        (
            QUERY,
            Choice(scheme=INT4, method="clustering"),
            ChoiceError("clustering does not make int4"),
        ),
        (
            QUERY,
            Choice(scheme=Palette(bits=4, group_size=0), method="gptq"),
            ChoiceError("gptq does not make lut4"),
        ),
        (
            QUERY,
            Choice(scheme=Palette(bits=4, group_size=48), method="clustering"),
            SchemeError("do not divide"),
        ),
        (
            "model.norm.weight",
            Choice(scheme=INT4, method="search"),
            SchemeError("cannot be quantized"),
        ),
        (
            "model.layer.weight",
            Choice(scheme=INT4, method="search"),
            CheckpointError("no tensor model.layer.weight"),
        ),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    checkpoint: Checkpoint, tmp_path: Path, name: str, choice: Choice, error: UserError
) -> None:
    out = tmp_path / "out"
    with pytest.raises(type(error), match=error.message):
        quantize_checkpoint(checkpoint, {name: choice}, None, out, silent)
    assert not out.exists()


@pytest.mark.parametrize(
    "scheme",
    [
        Affine(bits=4, block_size=16, symmetric=False),
        Affine(bits=8, block_size=0, symmetric=True),
    ],
)
def test_the_relative_error_is_taken_in_pieces(
    scheme: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.random.default_rng(0).normal(size=(100, 40)).astype(np.float32)
    tensor = round_to_nearest(weight, scheme)
    monkeypatch.setattr("fastvlm_compile.quantize.methods._ROWS_AT_ONCE", 7)
    expected = np.linalg.norm(tensor.dequantize() - weight) / np.linalg.norm(weight)
    assert relative_error(weight, tensor) == pytest.approx(expected, rel=1e-5)
    assert relative_error(np.zeros_like(weight), tensor) == 0


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _int(bits: int) -> Affine:
    return INT4 if bits == 4 else INT8


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _store_the_head_too(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = weights / "model.safetensors"
    tensors: dict[str, torch.Tensor] = load_file(path)
    tensors[LM_HEAD] = tensors[EMBED_TOKENS].clone()
    aside = path.with_suffix(".new")
    save_file(tensors, aside)
    shutil.move(aside, path)


def test_the_index_can_be_opened_again(checkpoint: Checkpoint, tmp_path: Path) -> None:
    choices = {QUERY: Choice(scheme=INT4, method="search")}
    made = quantize_checkpoint(checkpoint, choices, None, tmp_path, silent)
    assert open_quantized(tmp_path).entries == made.entries
