"""Executed, the packages compute what the reference computes, for any prompt and any cut.

The executor is not Core ML; what these tests show is that the packages say the right thing.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_language_helpers import (
    CONTEXT_LENGTH,
    PREFILL_CHUNK,
    all_logits,
    corrupted,
    decoder_config,
    open_decoder,
    random_rows,
    reference_logits,
    relative_l2,
)

from fastvlm_compile.export.coreml.language import module
from fastvlm_compile.export.coreml.language.check import operations
from fastvlm_compile.export.coreml.language.convert import write_chunk
from fastvlm_compile.export.coreml.language.plan import split
from reference.checkpoint.tensors import Checkpoint
from reference.fastvlm import FastVLM
from reference.generation import GenerationSettings, generate
from reference.session import TorchSession
from validation.runtimes.chunked_decoder import ContextFullError
from validation.runtimes.chunked_session import ChunkedSession
from validation.runtimes.ml_program.executable import load
from validation.runtimes.ml_program.watch import Watch

CONVERSION = 1e-5
"""Float32 arithmetic in another order; a wrong mask or place is past 1e-2."""

PRECISION = 5e-3
"""Weights of 11 bits and two layers of rounded results."""

T = PREFILL_CHUNK
LENGTHS = [1, 2, T - 1, T, T + 1, 2 * T - 3, 3 * T]


@pytest.mark.parametrize("form", ["float32", "pieces"])
@pytest.mark.parametrize("length", LENGTHS)
def test_prompts_of_every_length_then_tokens_equal_the_reference(
    request: pytest.FixtureRequest, reference: FastVLM, form: str, length: int
) -> None:
    decoder = open_decoder(request.getfixturevalue(form))
    rows = random_rows(length + 3)
    found = all_logits(decoder, [rows[:length], *rows[length:, None]])
    expected = reference_logits(reference, rows)[length - 1 :]
    for step in range(4):
        assert relative_l2(found[step], expected[step]) <= CONVERSION, step


def test_pieces_equal_one_package(float32: Path, pieces: Path) -> None:
    rows = random_rows(T + 4)
    prompt = [rows[: T + 2], rows[T + 2 : T + 3], rows[T + 3 :]]
    one, four = (all_logits(open_decoder(folder), prompt) for folder in (float32, pieces))
    assert relative_l2(four, one) <= 1e-6


def test_a_second_prompt_goes_on_from_any_place(float32: Path, reference: FastVLM) -> None:
    """What padding left in the cache is never seen: the prompts end inside a chunk."""
    rows = random_rows(3 * T + 5)
    cuts = [rows[: T + 3], rows[T + 3 : T + 4], rows[T + 4 : 2 * T + 9], rows[2 * T + 9 :]]
    found = all_logits(open_decoder(float32), cuts)
    ends = np.cumsum([len(cut) for cut in cuts]) - 1
    assert relative_l2(found, reference_logits(reference, rows)[ends]) <= CONVERSION


def test_padding_changes_nothing(float32: Path) -> None:
    decoder = open_decoder(float32)
    (chunk,), (program,) = decoder.layout.chunks, [pair[1] for pair in decoder._chunks]
    rows, noise = random_rows(3), 1000 * random_rows(T - 3, seed=1)
    results = []
    for padding in (np.repeat(rows[-1:], T - 3, axis=0), noise):
        inputs = {
            "inputs_embeds": np.concatenate([rows, padding])[None],
            "position": np.array([5], dtype=np.int32),
            "num_valid": np.array([3], dtype=np.int32),
            **{tensor.name: np.zeros(tensor.shape, dtype=np.float32) for tensor in chunk.cache},
        }
        results.append(program.run("prefill", inputs, program.new_state())["logits"])
    assert np.array_equal(results[0], results[1])


def test_the_context_can_be_filled_to_its_last_place(float32: Path, reference: FastVLM) -> None:
    rows = random_rows(CONTEXT_LENGTH)
    decoder = open_decoder(float32)
    memory = decoder.new_memory()
    decoder.append(rows[:-1], memory)
    found = decoder.append(rows[-1:], memory)
    assert relative_l2(found, reference_logits(reference, rows)[-1]) <= CONVERSION
    with pytest.raises(ContextFullError, match="the context of 100 has room for 0"):
        decoder.append(rows[:1], memory)


def test_the_packages_that_ship_stay_close_in_both_roundings(
    float16: Path, reference: FastVLM
) -> None:
    rows = random_rows(2 * T)
    cuts = [rows[: 2 * T - 3], *rows[2 * T - 3 :, None]]
    expected = reference_logits(reference, rows)[2 * T - 4 :]
    exact, rounded = (
        all_logits(open_decoder(float16, rounding), cuts) for rounding in ("none", "fp16")
    )
    assert relative_l2(exact, expected) <= PRECISION
    assert relative_l2(rounded, expected) <= PRECISION
    assert not np.array_equal(exact, rounded)


def test_greedy_and_beam_search_give_the_references_tokens(
    float32: Path, reference: FastVLM
) -> None:
    rows = random_rows(T + 5)
    decoder = open_decoder(float32)

    def embed(ids: np.ndarray) -> np.ndarray:
        table: np.ndarray = reference.embed(torch.from_numpy(ids)).numpy()
        return table

    for settings in (
        GenerationSettings(max_new_tokens=10),
        GenerationSettings(max_new_tokens=6, num_beams=3),
    ):
        expected = generate(
            TorchSession(reference.language, torch.from_numpy(rows)[None]), settings
        )
        found = generate(ChunkedSession(decoder, embed, rows), settings)
        assert found.token_ids == expected.token_ids


def test_selected_rows_do_not_share_their_state(float16: Path, reference: FastVLM) -> None:
    """float16, because there the cache is a state that runs overwrite in place."""
    rows = random_rows(T + 2)
    table = random_rows(8, seed=3)
    session = ChunkedSession(open_decoder(float16), lambda ids: table[ids], rows)
    session.start()
    session.select(np.array([0, 0, 0]))
    session.step(np.array([1, 2, 3]))
    session.select(np.array([2, 0, 2]))
    found = session.step(np.array([4, 5, 6]))
    for row, (first, second) in enumerate([(3, 4), (1, 5), (3, 6)]):
        tokens = np.concatenate([rows, table[[first, second]]])
        assert relative_l2(found[row], reference_logits(reference, tokens)[-1]) <= PRECISION


def test_rows_a_hundred_times_larger_do_not_overflow_float16(
    float16: Path, reference: FastVLM
) -> None:
    rows = 1000 * random_rows(T)
    watch = Watch()
    prefill = load(float16 / "decoder.mlpackage", function="prefill")
    outputs = prefill.run(
        {
            "inputs_embeds": rows[None].astype(np.float16),
            "position": np.zeros(1, dtype=np.int32),
            "num_valid": np.array([T], dtype=np.int32),
        },
        state=prefill.make_state(),
        rounding="fp16",
        watch=watch,
    )
    assert watch.non_finite == ()
    assert watch.near_overflow == ()
    expected = reference_logits(reference, rows.astype(np.float16).astype(np.float32))[-1]
    assert relative_l2(outputs["logits"][0, 0], expected) <= PRECISION


def operation(spec: object, function: str, kind: str, index: int = 0) -> object:
    found = [op for op in operations(spec, function) if op.type == kind]  # type: ignore[arg-type]
    return found[index]


def mask_off_by_one(spec: object) -> None:
    for function in ("prefill", "decode"):
        operation(spec, function, "greater").type = "greater_equal"  # type: ignore[attr-defined]


def mask_lets_the_next_in(spec: object) -> None:
    """`column > row` with its sides exchanged."""
    inputs = operation(spec, "prefill", "greater").inputs  # type: ignore[attr-defined]
    x, y = inputs["x"].arguments[0].name, inputs["y"].arguments[0].name
    inputs["x"].arguments[0].name, inputs["y"].arguments[0].name = y, x


def place_shifted_in_prefill(spec: object) -> None:
    """The prompt is rotated as if it stood one place further on; what is decoded is not."""
    found = operations(spec, "prefill")  # type: ignore[arg-type]
    constants = {op.outputs[0].name: op for op in found if op.type == "const"}
    for op in found:
        given = op.inputs["x"].arguments[0].name if op.type == "add" else ""
        if given in constants:
            tensor = constants[given].attributes["val"].immediateValue.tensor
            if [*tensor.ints.values] == [*range(T)]:
                tensor.ints.values[:] = [*range(1, T + 1)]
                return
    pytest.fail("there are no offsets 0 .. T - 1")


def keys_and_values_exchanged(spec: object) -> None:
    attention = operation(spec, "decode", "scaled_dot_product_attention")
    inputs = attention.inputs  # type: ignore[attr-defined]
    keys, values = inputs["key"].arguments[0], inputs["value"].arguments[0]
    keys.name, values.name = values.name, keys.name


def cache_of_the_other_layer(spec: object) -> None:
    """The second layer looks at what the first has stored."""
    first, second = (
        operation(spec, "decode", "scaled_dot_product_attention", index).inputs  # type: ignore[attr-defined]
        for index in (0, 1)
    )
    second["key"].arguments[0].name = first["key"].arguments[0].name


@pytest.mark.parametrize(
    "corrupt",
    [
        mask_off_by_one,
        mask_lets_the_next_in,
        place_shifted_in_prefill,
        keys_and_values_exchanged,
        cache_of_the_other_layer,
    ],
)
def test_a_corrupted_package_is_told_from_a_sound_one(
    float32: Path, reference: FastVLM, tmp_path: Path, corrupt: Callable[[object], None]
) -> None:
    rows = random_rows(T + 5)
    cuts = [rows[: T + 3], *rows[T + 3 :, None]]
    expected = reference_logits(reference, rows)[T + 2 :]
    assert relative_l2(all_logits(open_decoder(float32), cuts), expected) <= CONVERSION
    found = all_logits(open_decoder(corrupted(float32, tmp_path / "bad", corrupt)), cuts)
    assert not (relative_l2(found, expected) <= 100 * CONVERSION)


def test_a_norm_of_single_ops_would_overflow_where_the_packages_do_not(
    checkpoint: Checkpoint, reference: FastVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test with large rows: same rows, norm written out."""
    monkeypatch.setattr(module, "fused_rms_norm", lambda norm, x: norm(x))
    config = decoder_config(checkpoint, precision="float16")
    package = tmp_path / "decoder.mlpackage"
    write_chunk(split(config)[0], config, checkpoint, package)
    decode = load(package, function="decode")
    rows = (1000 * random_rows(1)).astype(np.float16)
    outputs = decode.run(
        {"inputs_embeds": rows[None], "position": np.zeros(1, dtype=np.int32)},
        state=decode.make_state(),
        rounding="fp16",
    )
    expected = reference_logits(reference, rows.astype(np.float32))[-1]
    assert not (relative_l2(outputs["logits"][0, 0], expected) <= 0.1)
