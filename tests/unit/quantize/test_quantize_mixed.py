"""Sensitivities are those of single tensors, and the search beats uniform bits at equal bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastvlm_compile.kept import KeptWork
from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.affine import round_to_nearest
from fastvlm_compile.quantize.families import CANDIDATES
from fastvlm_compile.quantize.mixed import choose_mixed, describe_policy, method_of, together
from fastvlm_compile.quantize.policy_file import (
    POLICY,
    SENSITIVITIES,
    read_choices,
    read_sensitivities,
    write_policy,
    write_sensitivities,
)
from fastvlm_compile.quantize.roles import role_of
from fastvlm_compile.quantize.scheme import Affine, Palette
from fastvlm_compile.quantize.sensitivity import Probe, Prompt, layer_of, measure_sensitivity
from fastvlm_compile.quantize.target_bytes import stored_bytes
from reference.checkpoint.names import to_module
from reference.checkpoint.tensors import open_checkpoint
from reference.errors import UserError
from reference.kept import NOTHING_KEPT
from reference.loading import build, load
from validation.logit_metrics import kl_divergence

INT4 = Affine(bits=4, block_size=32, symmetric=True)
INT8 = Affine(bits=8, block_size=64, symmetric=True)
NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "lm_head.weight",
)


def quantize(name, weight, scheme):
    return round_to_nearest(weight.numpy(), scheme)


@pytest.fixture(scope="module")
def model(random_checkpoint: Path):
    return load(random_checkpoint)


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint: Path):
    return open_checkpoint(random_checkpoint)


@pytest.fixture(scope="module")
def prompts(model):
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, 300, (1, length), generator=generator) for length in (5, 9)]
    features = torch.randn(1, 4, model.config.text.hidden_size, generator=generator)
    with_image = torch.cat([ids[0], torch.tensor([[-200]]), ids[1]], dim=1)
    return [
        Prompt(input_ids=ids[1], image_features=None),
        Prompt(input_ids=with_image, image_features=features),
    ]


def whole_kl(model, prompts, name, scheme):
    """The same number the plain way: the whole model twice, nothing kept."""
    parameter = model.get_parameter(
        "language." + name.removeprefix("model.").removeprefix("language.")
    )
    rows = []
    for prompt in prompts:
        with torch.inference_mode():
            before, _ = model.language(model.splice(prompt.input_ids, prompt.image_features))
            original = parameter.data
            tensor = round_to_nearest(original.numpy(), scheme)
            parameter.data = torch.from_numpy(tensor.dequantize())
            after, _ = model.language(model.splice(prompt.input_ids, prompt.image_features))
            parameter.data = original
        rows.append(kl_divergence(before[0].numpy(), after[0].numpy()))
    return float(np.concatenate(rows).mean())


@pytest.mark.parametrize("name", NAMES)
def test_a_sensitivity_is_the_divergence_with_that_tensor_alone_changed(
    model, checkpoint, prompts, name
):
    measured = measure_sensitivity(
        model,
        checkpoint,
        prompts,
        names=[name],
        schemes=(INT4, INT8),
        quantize=quantize,
        progress=silent,
    )
    found = measured[name].candidates
    for each in found:
        expected = whole_kl(model, prompts, name, each.scheme)
        assert each.kl_mean == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert found[0].kl_mean > found[1].kl_mean


def test_the_model_is_left_as_it_was(model, checkpoint, prompts):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_sensitivity(
        model, checkpoint, prompts, names=NAMES, schemes=(INT4,), quantize=quantize, progress=silent
    )
    together(Probe(model, prompts), checkpoint, prompts, dict.fromkeys(NAMES, INT4), quantize)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_killed_measurement_goes_on_with_the_next_layer(model, checkpoint, prompts, tmp_path):
    asked: list[str] = []

    def measure(until: str, kept):
        def quantize_or_die(name, weight, scheme):
            asked.append(name)
            if name == until:
                raise KeyboardInterrupt
            return quantize(name, weight, scheme)

        return measure_sensitivity(
            model,
            checkpoint,
            prompts,
            names=NAMES,
            schemes=(INT4, INT8),
            quantize=quantize_or_die,
            progress=silent,
            kept=kept,
        )

    kept = KeptWork(folder=tmp_path, worth_s=0)
    with pytest.raises(KeyboardInterrupt):
        measure("model.layers.1.mlp.down_proj.weight", kept)
    asked.clear()
    resumed = measure("", kept)
    assert set(asked) == set(NAMES[2:])
    assert resumed == measure("", NOTHING_KEPT)


@pytest.mark.parametrize("tied", [True, False])
def test_a_streamed_model_has_the_same_sensitivities(make_checkpoint, prompts, tied):
    checkpoint = open_checkpoint(make_checkpoint(tie_word_embeddings=tied, num_hidden_layers=3))
    names = [name for name in NAMES if name in checkpoint.tensors]
    found = []
    for resident_bytes in (None, 0):
        model = build(checkpoint, resident_bytes=resident_bytes)
        alone = measure_sensitivity(
            model,
            checkpoint,
            prompts,
            names=names,
            schemes=(INT4,),
            quantize=quantize,
            progress=silent,
        )
        schemes = dict.fromkeys(names, INT4)
        found.append(
            (alone, together(Probe(model, prompts), checkpoint, prompts, schemes, quantize))
        )
    assert found[0] == found[1]


def test_all_changes_together_are_those_of_a_model_that_was_changed(model, checkpoint, prompts):
    schemes = dict.fromkeys(NAMES, INT4)
    measured = together(Probe(model, prompts), checkpoint, prompts, schemes, quantize)
    changed = build(checkpoint)
    for name in NAMES:
        parameter = changed.get_parameter(to_module(name))
        parameter.data = torch.from_numpy(quantize(name, parameter.data, INT4).dequantize())
    rows = []
    for prompt in prompts:
        with torch.inference_mode():
            before, after = (
                each.language(each.splice(prompt.input_ids, prompt.image_features))[0][0].numpy()
                for each in (model, changed)
            )
        rows.append(kl_divergence(before, after))
    assert measured == pytest.approx(float(np.concatenate(rows).mean()), rel=1e-3)


def test_layers_are_read_off_the_names():
    assert [layer_of(name) for name in NAMES][:3] == [-1, 0, 1]
    assert layer_of("lm_head.weight") > 1000


@pytest.fixture(scope="module")
def shapes(random_checkpoint):
    tensors = open_checkpoint(random_checkpoint).tensors
    roles = ("embedding", "head", "language")
    return {n: i.shape for n, i in tensors.items() if role_of(n, i.shape) in roles}


@pytest.fixture(scope="module")
def sensitivities(model, checkpoint, prompts, shapes):
    return measure_sensitivity(
        model,
        checkpoint,
        prompts,
        names=list(shapes),
        schemes=CANDIDATES["affine"],
        quantize=quantize,
        progress=silent,
    )


@pytest.fixture(scope="module")
def policy(model, checkpoint, prompts, shapes, sensitivities):
    schemes = choose_mixed(sensitivities, target="onnx", mean_bits=uniform_bits(shapes, INT4))
    measured = together(Probe(model, prompts), checkpoint, prompts, schemes, quantize)
    return describe_policy(sensitivities, schemes, target="onnx", measured_kl=measured)


def uniform_bits(shapes, scheme):
    weights = sum(int(np.prod(shape)) for shape in shapes.values())
    return 8 * sum(stored_bytes("onnx", scheme, s) for s in shapes.values()) / weights


def test_mixed_bits_lose_less_than_uniform_ones_of_the_same_bytes(
    policy, model, checkpoint, prompts, shapes
):
    assert policy.bits_per_weight <= uniform_bits(shapes, INT4)
    uniform = together(
        Probe(model, prompts), checkpoint, prompts, dict.fromkeys(shapes, INT4), quantize
    )
    assert policy.measured_kl < uniform
    chosen = {choice.scheme for choice in policy.choices.values()}
    assert len(chosen) > 1, "a uniform choice would prove nothing"


def test_the_predicted_loss_is_the_sum_of_the_chosen_ones(policy):
    chosen = [
        next(
            each.kl_mean
            for each in policy.sensitivities[name].candidates
            if each.scheme == choice.scheme
        )
        for name, choice in policy.choices.items()
    ]
    assert policy.predicted_kl == pytest.approx(sum(chosen))


def test_what_was_measured_and_chosen_is_read_as_it_was_written(policy, tmp_path):
    write_policy(tmp_path, policy)
    assert read_choices(tmp_path) == policy.choices
    write_sensitivities(tmp_path, policy.sensitivities)
    assert read_sensitivities(tmp_path) == policy.sensitivities


def test_a_damaged_policy_is_refused_by_name(policy, tmp_path):
    write_policy(tmp_path, policy)
    path = tmp_path / POLICY
    path.write_text(path.read_text().replace('"affine"', '"magic"'))
    with pytest.raises(UserError, match=POLICY):
        read_choices(tmp_path)
    with pytest.raises(UserError, match=SENSITIVITIES):
        read_sensitivities(tmp_path)


def test_candidates_fit_their_targets_and_methods_fit_the_candidates():
    assert all(isinstance(scheme, Palette) for scheme in CANDIDATES["palette"])
    assert all(isinstance(scheme, Affine) for scheme in CANDIDATES["affine"])
    assert method_of("lm_head.weight", INT4) == "gptq"
    assert method_of("model.embed_tokens.weight", INT4) == "search"
    assert method_of("lm_head.weight", Palette(bits=4, group_size=16)) == "clustering"


def test_bytes_of_a_target_count_its_scales():
    shape = (64, 128)
    assert stored_bytes("onnx", INT4, shape) == 64 * 128 // 2 + 64 * 4 * 4
    assert stored_bytes("coreml", INT4, shape) == 64 * 128 // 2 + 64 * 4 * 2
    assert stored_bytes("coreml", Palette(bits=4, group_size=16), shape) == 4096 + 4 * 16 * 2
    asymmetric = Affine(bits=4, block_size=32, symmetric=False)
    assert stored_bytes("mlx", asymmetric, shape) == 4096 + 64 * 4 * 4 + 64 * 4 // 2
