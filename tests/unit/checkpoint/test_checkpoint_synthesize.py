"""Made-up checkpoints have the real form, and weights that make a living model."""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastvlm_compile.checkpoint.synthesize import plan, plan_size, synthesize
from reference.checkpoint.expected import expected_tensors
from reference.checkpoint.names import to_layout
from reference.config import parse_config
from reference.errors import ConfigError
from reference.loading import load
from reference.prompt import build_prompt, encode_prompt, load_tokenizer


def digest(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def probe_images(count: int) -> torch.Tensor:
    """Gradients, stripes and flat colours: unlike what the calibration saw."""
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(0, 1, 128)
    images = []
    for index in range(count):
        colour = torch.rand(3, 1, 1, generator=generator)
        pattern = (line * (2 + 3 * index)) % 1 if index % 2 else line.flip(0)
        images.append((0.6 * colour + 0.4 * pattern[None, :, None]).expand(3, 128, 128))
    return torch.stack(images)


class TestForm:
    @pytest.mark.parametrize(
        ("size", "layout", "rows"),
        [
            ("0.5b", "apple", 151936),
            ("0.5b", "transformers", 152000),
            ("1.5b", "transformers", 152000),
            ("7b", "apple", 152064),
            ("7b", "transformers", 152128),
        ],
    )
    def test_a_released_size_has_its_tensors_in_float16(self, size, layout, rows) -> None:
        made_up = plan_size(size, layout)
        config = parse_config(made_up.raw_config, source="config.json")
        assert config.layout == layout
        assert config.text.vocab_size == rows
        tensors = {t.name: t for shard in made_up.shards for t in shard.tensors}
        wanted = {to_layout(n, layout): shape for n, shape in expected_tensors(config).items()}
        wanted.pop(None, None)
        assert {name: t.shape for name, t in tensors.items()} == wanted
        counters = {name for name in tensors if name.endswith("num_batches_tracked")}
        assert len(counters) == 44
        assert {tensors[name].dtype for name in counters} == {"int64"}
        assert {t.dtype for name, t in tensors.items() if name not in counters} == {"float16"}

    def test_the_config_has_the_keys_of_apples_file(self) -> None:
        raw = plan_size("1.5b", "apple").raw_config
        assert raw["mm_vision_tower"] == "mobileclip_l_1024"
        assert raw["mm_projector_type"] == "mlp2x_gelu"
        assert raw["tokenizer_model_max_length"] == 8192
        assert raw["image_aspect_ratio"] == "pad"
        assert raw["tie_word_embeddings"] is False
        assert len(raw) == 40

    @pytest.mark.parametrize("layout", ["apple", "transformers"])
    def test_the_folder_holds_the_files_of_its_layout(self, make_checkpoint, layout) -> None:
        names = {path.name for path in make_checkpoint(layout=layout).iterdir()}
        common = {
            "added_tokens.json",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "model.safetensors",
            "preprocessor_config.json",
            "special_tokens_map.json",
            "tokenizer_config.json",
            "vocab.json",
        }
        more = {"chat_template.jinja", "processor_config.json", "tokenizer.json"}
        assert names == (common | more if layout == "transformers" else common)

    def test_a_tied_model_has_no_output_head_in_its_file(self, make_checkpoint) -> None:
        directory = make_checkpoint(tie_word_embeddings=True)
        assert "lm_head.weight" not in load_file(directory / "model.safetensors")
        load(directory)

    def test_a_vocabulary_without_room_for_the_image_token_is_refused(self, tiny_config) -> None:
        with pytest.raises(ConfigError, match="<image>"):
            plan(tiny_config | {"vocab_size": 323}, "apple")
        plan(tiny_config | {"vocab_size": 324}, "apple")

    def test_a_config_without_the_first_special_token_is_refused(self, tiny_config) -> None:
        del tiny_config["bos_token_id"]
        with pytest.raises(ConfigError, match="bos_token_id"):
            plan(tiny_config, "apple")

    def test_the_planned_size_covers_what_is_written(self, tiny_config, tmp_path) -> None:
        synthesize(tiny_config, 0, "transformers", tmp_path)
        written = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert 0 < written <= plan(tiny_config, "transformers").size_bytes


class TestDeterminism:
    def test_one_seed_gives_one_checkpoint(self, random_checkpoint, make_checkpoint) -> None:
        assert digest(make_checkpoint()) == digest(random_checkpoint)

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="names features of x86-64 only")
    def test_an_older_processor_writes_the_same_bytes(self, random_checkpoint, tmp_path) -> None:
        code = (
            "import json, sys; from pathlib import Path\n"
            "from fastvlm_compile.checkpoint.synthesize import synthesize\n"
            "synthesize(json.loads(sys.argv[1]), 0, 'apple', Path(sys.argv[2]))\n"
        )
        raw = (random_checkpoint / "config.json").read_text()
        older = {
            "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX2 FMA3",
            "OPENBLAS_CORETYPE": "Nehalem",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-W", "ignore", "-c", code, raw, str(tmp_path)]
        subprocess.run(command, check=True, env=os.environ | older)
        assert digest(tmp_path) == digest(random_checkpoint)

    def test_another_seed_gives_other_weights(self, random_checkpoint, make_checkpoint) -> None:
        one = load_file(random_checkpoint / "model.safetensors")
        other = load_file(make_checkpoint(seed=1) / "model.safetensors")
        same = [name for name in one if torch.equal(one[name], other[name])]
        assert all(name.endswith("num_batches_tracked") for name in same)

    def test_both_layouts_hold_the_same_values(self, random_checkpoint, make_checkpoint) -> None:
        apple = load_file(random_checkpoint / "model.safetensors")
        other = load_file(make_checkpoint(layout="transformers") / "model.safetensors")
        for name, tensor in apple.items():
            placed = to_layout(name, "transformers")
            assert placed is None or torch.equal(tensor, other[placed]), name


class TestWeights:
    """Of the small checkpoint; the released sizes draw from the same distributions."""

    @pytest.fixture(scope="class")
    def tensors(self, random_checkpoint):
        stored = load_file(random_checkpoint / "model.safetensors")
        return {name: tensor.float().numpy() for name, tensor in stored.items()}

    def test_every_value_is_finite_and_no_tensor_is_constant(self, tensors) -> None:
        for name, values in tensors.items():
            assert np.isfinite(values).all(), name
            if values.size > 1:
                assert values.std() > 0, name

    def test_layer_scales_matter(self, tensors) -> None:
        scales = [v for name, v in tensors.items() if "layer_scale" in name]
        assert len(scales) == 4 + 2 * 2
        for values in scales:
            assert values.min() >= np.float16(0.05)
            assert values.max() <= 1
            assert values.max() / values.min() > 2

    def test_running_variances_are_positive_and_differ(self, tensors) -> None:
        variances = [v for name, v in tensors.items() if name.endswith("running_var")]
        assert all(v.min() > 1e-3 and v.max() / v.min() > 2 for v in variances)

    def test_a_few_channels_of_the_residual_stream_stand_out(self, tensors) -> None:
        written = {}
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            for layer in range(2):
                rows = tensors[f"model.layers.{layer}.{name}.weight"].std(axis=1)
                written[layer, name] = rows / np.median(rows)
        outlier, *others = {int(rows.argmax()) for rows in written.values()}
        assert not others, "the same channel everywhere"
        assert all(rows.max() > 6 for rows in written.values())
        for layer in range(2):
            norm = tensors[f"model.layers.{layer}.input_layernorm.weight"]
            assert norm[outlier] < 0.5 * np.median(norm), "the norms scale it down again"

    def test_reparameterised_residuals_hold_the_identity(self, tensors) -> None:
        prefix = "model.vision_tower.vision_tower.model.network."
        for name in ("0.0.token_mixer", "6", "9"):
            kernel = tensors[f"{prefix}{name}.reparam_conv.weight"]
            middle = kernel.shape[-1] // 2
            assert 0.7 < kernel[:, 0, middle, middle].mean() < 1.3


class TestLife:
    """What flows through a made-up model is neither dead nor out of range."""

    @pytest.fixture(scope="class")
    def model(self, random_checkpoint):
        return load(random_checkpoint)

    @pytest.fixture(scope="class")
    def last_logits(self, random_checkpoint, model):
        """[images, prompts, V]: log probabilities after the prompt."""
        tokenizer = load_tokenizer(random_checkpoint)
        prompts = ["What is this?", "How many?", "Red or blue?", "Describe the image."]
        rows = []
        for image in probe_images(5):
            for prompt in prompts:
                ids = torch.from_numpy(encode_prompt(build_prompt(prompt), tokenizer))[None]
                logits = model.logits(ids, image[None])[0, -1]
                rows.append(torch.log_softmax(logits.double(), -1))
        return torch.stack(rows).reshape(5, len(prompts), -1)

    def test_no_activation_leaves_the_range_of_float16(self, model) -> None:
        largest: dict[str, float] = {}

        def keep(name):
            def hook(module, inputs, output) -> None:
                value = output[0] if isinstance(output, tuple) else output
                largest[name] = max(largest.get(name, 0.0), value.abs().max().item())

            return hook

        hooks = [m.register_forward_hook(keep(n)) for n, m in model.named_modules()]
        model.logits(torch.tensor([[1, 2, -200, 3]]), probe_images(4)[3:])
        for hook in hooks:
            hook.remove()
        assert len(largest) > 80
        assert max(largest.values()) < 1e4
        assert all(value > 1e-3 for value in largest.values()), min(largest, key=largest.get)

    def test_features_differ_between_images(self, model) -> None:
        features = model.vision_tower(probe_images(5)).flatten(1)
        unit = features / features.norm(dim=1, keepdim=True)
        cosine = unit @ unit.T - torch.eye(5)
        assert cosine.max() < 0.97

    def test_the_next_token_is_neither_certain_nor_arbitrary(self, last_logits) -> None:
        entropy = -(last_logits.exp() * last_logits).sum(-1)
        assert entropy.min() > 0.1
        assert entropy.median() < 5
        assert entropy.median() > 0.5

    def test_the_next_token_depends_on_the_image_and_on_the_prompt(self, last_logits) -> None:
        best = last_logits.argmax(-1)
        assert all(len(set(column.tolist())) > 1 for column in best.T), "the image"
        assert any(len(set(row.tolist())) > 1 for row in best), "the prompt"
        first = last_logits[0]
        for other in last_logits[1:]:
            assert (first.exp() * (first - other)).sum(-1).min() > 0.01

    def test_greedy_generation_does_not_get_stuck_on_one_token(self, model) -> None:
        ids = torch.tensor([[1, 2, -200, 3]])
        from reference.generation import GenerationSettings

        settings = GenerationSettings(max_new_tokens=12)
        tokens = model.generate(ids, probe_images(1), settings=settings).token_ids
        assert len(set(tokens)) > 2


def test_the_image_and_its_resolution_are_those_of_the_config(make_checkpoint) -> None:
    directory = make_checkpoint(mm_vision_tower="mobileclip_l_192")
    processor = json.loads((directory / "preprocessor_config.json").read_text())
    assert processor["crop_size"] == {"height": 192, "width": 192}
    assert load(directory).config.vision.num_tokens == 9
