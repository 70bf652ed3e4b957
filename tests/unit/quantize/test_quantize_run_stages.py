"""The stages: what they write, that their configs cross into a worker, that they cost nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastvlm_compile.progress import silent
from fastvlm_compile.quantize.calibration_plan import CalibrationPlan
from fastvlm_compile.quantize.presets import PRESETS, Rule, resolve
from fastvlm_compile.quantize.scheme import Affine
from fastvlm_compile.quantize.weights_file import open_quantized
from fastvlm_compile.stages.quantize import (
    QuantizeConfig,
    RuleConfig,
    calibration,
    config_of,
    quantize,
)
from fastvlm_compile.structure import from_plain, to_plain
from reference.checkpoint.tensors import open_checkpoint

INT4 = Affine(bits=4, block_size=32, symmetric=True)
RULES = (
    Rule(role="language", scheme=INT4, method="gptq"),
    Rule(role="embedding", scheme=INT4, method="search"),
)


@pytest.fixture
def inputs(random_checkpoint: Path, tmp_path: Path) -> dict[str, Path]:
    described = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, described / "processor")
    out = tmp_path / "calibration"
    out.mkdir()
    config = CalibrationPlan(
        image_size=128,
        fit="pad",
        image_position="before",
        scenes=2,
        photographs=0,
        prompts=("Describe the image.",),
    )
    calibration(config, {"checkpoint": described}, out, silent)
    return {"weights": random_checkpoint, "calibration": out}


def test_the_stages_write_inputs_and_what_the_rules_make_of_the_weights(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    quantize(config_of(RULES), inputs, out, silent)
    shapes = {k: v.shape for k, v in open_checkpoint(inputs["weights"]).tensors.items()}
    expected = resolve(RULES, shapes)
    entries = open_quantized(out).entries
    assert {name: entry.method for name, entry in entries.items()} == {
        name: choice.method for name, choice in expected.items()
    }
    assert len(entries) == 2 * 7 + 1


def test_rules_without_inputs_need_no_calibration(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    quantize(config_of(RULES[1:]), {"weights": inputs["weights"]}, out, silent)
    assert len(open_quantized(out).entries) == 1


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_rules_of_every_preset_cross_into_a_worker(preset: str) -> None:
    for quantization in PRESETS[preset].quantizations.values():  # type: ignore[index]
        for part in quantization.parts.values():
            config = config_of(part.rules)
            read = from_plain(to_plain(config), QuantizeConfig)
            assert read == config
            assert tuple(rule.rule() for rule in read.rules) == part.rules


def test_a_rule_has_one_scheme() -> None:
    with pytest.raises(AssertionError, match="one scheme"):
        RuleConfig(role="head", method="search")


def test_the_stage_module_imports_nothing_heavy() -> None:
    code = (
        "import sys, fastvlm_compile.stages.quantize\n"
        "heavy = {'numpy', 'torch', 'safetensors', 'tokenizers', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
