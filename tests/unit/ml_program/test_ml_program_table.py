"""The table of ops against the registry of coremltools: which ops, and which parameters when."""

import re
from pathlib import Path

import pytest
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from ml_program_building import TARGETS

from validation.runtimes.ml_program.constants import COMPRESSIONS
from validation.runtimes.ml_program.ops.table import BUILT_IN, TABLE

# Refused by name: recurrent and random ops, lists, classifiers, and what nobody specifies.
REFUSED = {
    "classify",
    "conv_quantized",
    "crop_resize",
    "gru",
    "l2_pool",
    "list_gather",
    "list_length",
    "list_read",
    "list_scatter",
    "list_write",
    "lstm",
    "make_list",
    "non_maximum_suppression",
    "random_bernoulli",
    "random_categorical",
    "random_normal",
    "random_uniform",
    "rnn",
}


def test_every_op_of_coremltools_is_implemented_or_refused_on_purpose() -> None:
    implemented = {*TABLE, *COMPRESSIONS, *BUILT_IN}
    known = {kind for kind in SSAOpRegistry.core_ops if not kind.startswith("_")}
    assert known - implemented == REFUSED
    assert implemented - known == {"write_state"}  # coremltools writes it without knowing it


@pytest.mark.parametrize("opset", [5, 6, 7, 8])
def test_every_op_takes_the_parameters_that_its_opset_has(opset: int) -> None:
    for kind, versions in TABLE.items():
        theirs = SSAOpRegistry.core_ops[kind].get(TARGETS[opset])
        ours = [version for version in versions if version.since <= opset]
        if theirs is None:
            assert not ours, kind
            continue
        wanted = theirs.input_spec.input_types
        found = {param.name: param.optional for param in ours[-1].params}
        assert set(found) == set(wanted), kind
        assert all(found[name] for name, given in wanted.items() if given.optional), kind


@pytest.mark.parametrize("opset", [6, 7, 8])
def test_every_compression_takes_the_parameters_that_its_opset_has(opset: int) -> None:
    for kind, versions in COMPRESSIONS.items():
        theirs = SSAOpRegistry.core_ops[kind].get(TARGETS[opset])
        ours = [version for version in versions if version.since <= opset]
        if theirs is None:
            assert not ours, kind
            continue
        assert {*ours[-1].required, *ours[-1].optional} == set(theirs.input_spec.input_types), kind


def test_every_op_is_tried_by_some_test_of_this_folder() -> None:
    words: set[str] = set()
    for path in Path(__file__).parent.glob("test_ml_program_*.py"):
        if path.name != Path(__file__).name:
            words.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    assert not set(TABLE) - words
    assert not set(COMPRESSIONS) - words
