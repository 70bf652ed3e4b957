"""States over several steps, functions that share weights and states, and updates in place."""

from pathlib import Path

import coremltools
import numpy as np
import pytest
import torch
from ml_program_building import ct, save

from validation.runtimes.ml_program.errors import InputError, PackageError
from validation.runtimes.ml_program.executable import Executable, load
from validation.runtimes.ml_program.plan import Compute

CONTEXT, HEADS, DIM, SIZE, LAYERS = 32, 2, 16, 32, 2


class CachedDecoder(torch.nn.Module):
    """Two layers of attention over a cache kept in two states, as Core ML's decoders have it."""

    def __init__(self) -> None:
        super().__init__()
        shape = (LAYERS, HEADS, CONTEXT, DIM)
        self.register_buffer("keys", torch.zeros(shape, dtype=torch.float16))
        self.register_buffer("values", torch.zeros(shape, dtype=torch.float16))
        self.projections = torch.nn.ModuleList(
            torch.nn.Linear(SIZE, 3 * HEADS * DIM) for _ in range(LAYERS)
        )
        self.outs = torch.nn.ModuleList(torch.nn.Linear(HEADS * DIM, SIZE) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        places = torch.arange(CONTEXT)
        mask = torch.where(places[None] <= places[:length, None] + position, 0.0, -1e4)
        for layer in range(LAYERS):
            query, key, value = (
                part.view(1, length, HEADS, DIM).transpose(1, 2)
                for part in self.projections[layer](x).chunk(3, -1)
            )
            start = position
            self.keys[layer : layer + 1, :, start : start + length] = key.half()
            self.values[layer : layer + 1, :, start : start + length] = value.half()
            mixed = torch.nn.functional.scaled_dot_product_attention(
                query,
                self.keys[layer : layer + 1].float(),
                self.values[layer : layer + 1].float(),
                attn_mask=mask,
            )
            x = x + self.outs[layer](mixed.transpose(1, 2).reshape(1, length, -1))
        return x


def convert(path: Path, length: int, precision: ct.precision) -> Path:
    torch.manual_seed(0)
    module = CachedDecoder().eval()
    example = (torch.zeros(1, length, SIZE), torch.zeros(1, dtype=torch.int32))
    state = ct.TensorType(shape=(LAYERS, HEADS, CONTEXT, DIM), dtype=np.float16)
    return save(
        torch.jit.trace(module, example, check_trace=False),
        path,
        precision=precision,
        inputs=[
            ct.TensorType("x", (1, length, SIZE)),
            ct.TensorType("position", (1,), dtype=np.int32),
        ],
        outputs=[ct.TensorType("y")],
        states=[ct.StateType(state, name="keys"), ct.StateType(state, name="values")],
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prefill (8 tokens), decode (1 token) and both in one package."""
    folder = tmp_path_factory.mktemp("states")
    convert(folder / "prefill.mlpackage", 8, ct.precision.FLOAT32)
    convert(folder / "decode.mlpackage", 1, ct.precision.FLOAT32)
    merged = coremltools.utils.MultiFunctionDescriptor()
    for name in ("prefill", "decode"):
        merged.add_function(str(folder / f"{name}.mlpackage"), "main", name)
    merged.default_function_name = "prefill"
    coremltools.utils.save_multifunction(merged, str(folder / "both.mlpackage"))
    return folder


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 14, SIZE), dtype=np.float32)


def wanted(tokens: np.ndarray) -> np.ndarray:
    """All tokens at once through torch."""
    torch.manual_seed(0)
    module = CachedDecoder().eval()
    with torch.no_grad():
        return module(torch.tensor(tokens), torch.zeros(1, dtype=torch.int32)).numpy()


def step(package: Executable, state: object, tokens: np.ndarray, start: int) -> np.ndarray:
    length = package.inputs[0].shape.shape[1]  # type: ignore[union-attr] - it has one
    given = {
        "x": tokens[:, start : start + length],
        "position": np.array([start], np.int32),
    }
    return package.run(given, state=state)["y"]  # type: ignore[arg-type] - see the caller


def test_a_prompt_and_single_steps_give_what_one_pass_gives(
    packages: Path, tokens: np.ndarray
) -> None:
    prefill = load(packages / "both.mlpackage")
    decode = prefill.with_function("decode")
    assert set(prefill.functions) == {"prefill", "decode"}
    state = prefill.make_state()
    found = [step(prefill, state, tokens, 0)]
    found += [step(decode, state, tokens, place) for place in range(8, 14)]
    error = np.concatenate(found, 1) - wanted(tokens)
    # The cache holds fp16 values in torch, and float32 here without rounding.
    assert np.abs(error).max() < 2e-3


def test_functions_of_one_package_share_their_weights(packages: Path) -> None:
    prefill = load(packages / "both.mlpackage", function="prefill")
    single = load(packages / "prefill.mlpackage")
    x = {
        "x": np.random.default_rng(1).standard_normal((1, 8, SIZE), dtype=np.float32),
        "position": np.zeros(1, np.int32),
    }
    left = prefill.run(x, state=prefill.make_state())["y"]
    assert np.array_equal(left, single.run(x, state=single.make_state())["y"])
    with pytest.raises(PackageError, match="has no function 'train'") as caught:
        load(packages / "both.mlpackage", function="train")
    assert "decode, prefill" in caught.value.hint


def test_updating_in_place_changes_no_result(packages: Path, tokens: np.ndarray) -> None:
    decode = load(packages / "decode.mlpackage")
    updates = [
        planned
        for planned in decode._plan.block.steps
        if isinstance(planned, Compute) and planned.operation.kind == "slice_update"
    ]
    assert len(updates) == 2 * LAYERS
    assert all(update.in_place for update in updates)
    fast, slow = decode.make_state(), decode.make_state()
    for place in range(5):
        given = {"x": tokens[:, place : place + 1], "position": np.array([place], np.int32)}
        left = decode.run(given, state=fast)["y"]
        right = decode.run(given, state=slow, keep=decode.value_names)["y"]  # copies everything
        assert np.array_equal(left, right)
    assert all(np.array_equal(fast.read(name), slow.read(name)) for name in ("keys", "values"))


def test_states_start_at_zero_and_can_be_read_written_and_copied(
    packages: Path, tokens: np.ndarray
) -> None:
    decode = load(packages / "decode.mlpackage")
    state = decode.make_state()
    assert not state.read("keys").any()
    step(decode, state, tokens, 0)
    kept = state.copy()
    filled = state.read("keys")
    assert filled[:, :, 0].any()
    assert not filled[:, :, 1:].any()
    once = step(decode, state, tokens, 1)
    assert np.array_equal(once, step(decode, kept, tokens, 1))
    other = decode.make_state()
    for name in ("keys", "values"):
        other.write(name, kept.read(name))
    assert np.array_equal(step(decode, other, tokens, 2), step(decode, kept, tokens, 2))
    assert np.array_equal(filled[:, :, 0], kept.read("keys")[:, :, 0])


def test_a_run_without_its_states_or_with_others_is_refused(
    packages: Path, tokens: np.ndarray
) -> None:
    decode = load(packages / "decode.mlpackage")
    with pytest.raises(InputError, match="has states and got none"):
        step(decode, None, tokens, 0)
    state = decode.make_state()
    with pytest.raises(InputError, match="there is no state 'key'; states: "):
        state.read("key")
    with pytest.raises(InputError, match="not \\[3\\]"):
        state.write("keys", np.zeros(3, np.float16))
    del state.types["keys"]
    with pytest.raises(InputError, match="state 'keys' is fp16"):
        step(decode, state, tokens, 0)


def test_a_rounded_run_keeps_half_precision_in_its_states(
    packages: Path, tokens: np.ndarray
) -> None:
    decode = load(packages / "decode.mlpackage")
    exact, rounded = decode.make_state(), decode.make_state()
    given = {"x": tokens[:, :1], "position": np.zeros(1, np.int32)}
    decode.run(given, state=exact)
    decode.run(given, state=rounded, rounding="fp16")
    held = rounded.read("keys")
    assert np.array_equal(held, held.astype(np.float16).astype(np.float32))
    assert not np.array_equal(held, exact.read("keys"))
