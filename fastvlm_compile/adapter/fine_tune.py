"""A LoRA fine-tune opened over its base: every tensor accounted for, none of them read yet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastvlm_compile.adapter.config import AdapterConfig, load_adapter_config
from fastvlm_compile.adapter.folder import ADAPTER_STEM, TRAINABLES_STEM, weight_file
from fastvlm_compile.adapter.names import Meaning, known_names, meaning_of
from fastvlm_compile.checkpoint.configs import same_model
from reference.checkpoint.names import EMBED_TOKENS, LM_HEAD
from reference.checkpoint.storage import TensorInfo, scan_file
from reference.checkpoint.tensors import Checkpoint, open_checkpoint
from reference.config import FastVLMConfig, load_config
from reference.errors import CheckpointError

_LAYERS = "model.layers."


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two matrices that change one weight: `W + scale * B @ A`."""

    a: TensorInfo
    """[rank, in]."""
    b: TensorInfo
    """[out, rank]."""


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """An adapter, the tensors trained beside it, and the base that both belong on."""

    folder: Path
    adapter: AdapterConfig
    base: Checkpoint
    config: FastVLMConfig
    """The fine-tune's own where it has one, as it knows how it was trained."""
    config_folder: Path
    """Which folder's `config.json` that is."""
    pairs: Mapping[str, Pair]
    """By canonical name of the weight."""
    replaced: Mapping[str, TensorInfo]
    """By canonical name."""


def open_fine_tune(folder: Path, base_folder: Path) -> FineTune:
    """List a fine-tune's tensors and check each against the base.

    Raises:
        CheckpointError: a file is missing or damaged; a tensor is unknown, misshapen, without its
            partner or given twice; the base is another model. Each is named.
        ConfigError: a config is not FastVLM's.
    """
    adapter = load_adapter_config(folder)
    base = open_checkpoint(base_folder)
    own = (folder / "config.json").is_file()
    config = load_config(folder) if own else base.config
    _check_configs(folder, config, base)
    path = weight_file(folder, ADAPTER_STEM)
    if path is None:
        raise CheckpointError(f"{folder}: no {ADAPTER_STEM}.safetensors and no {ADAPTER_STEM}.bin")
    files = [path]
    trainables = weight_file(folder, TRAINABLES_STEM)
    if trainables is not None:
        files.append(trainables)
    sorted_tensors = _sort(files, known_names(base.tensors))
    pairs = dict(_pairs(path, sorted_tensors, adapter, base))
    replaced = dict(_replaced(folder, sorted_tensors, base))
    _check_targets(path, pairs, adapter, base)
    _check_tie(folder, {*pairs, *replaced}, base)
    for name in pairs.keys() & replaced.keys():
        raise CheckpointError(f"{folder}: {name} is both adapted and replaced")
    return FineTune(
        folder=folder,
        adapter=adapter,
        base=base,
        config=config,
        config_folder=folder if own else base_folder,
        pairs=pairs,
        replaced=replaced,
    )


def _check_configs(folder: Path, config: FastVLMConfig, base: Checkpoint) -> None:
    if config.layout != base.layout:
        raise CheckpointError(
            f"{base.path}: the base is in the {base.layout} layout, the adapter's config.json "
            f"in the {config.layout} one",
            hint=f"fastvlm-compile checkpoint convert {base.path} DIR --to {config.layout}",
        )
    if not same_model(config, base.config):
        raise CheckpointError(
            f"{folder / 'config.json'}: describes another model than the base's config.json",
            hint=f"is {base.path} the checkpoint that the adapter was trained on?",
        )


def _sort(files: list[Path], known: Mapping[str, str]) -> Mapping[Meaning, TensorInfo]:
    found: dict[Meaning, TensorInfo] = {}
    for path in files:
        for stored, info in scan_file(path).items():
            meaning = meaning_of(stored, known)
            if isinstance(meaning, str):
                raise CheckpointError(
                    f"{path}: tensor {stored!r} {meaning}",
                    hint="is the base the checkpoint that the adapter was trained on?",
                )
            if meaning.role != "replacement" and path != files[0]:
                raise CheckpointError(f"{path}: tensor {stored!r} belongs into {files[0].name}")
            if meaning in found:
                other = found[meaning]
                raise CheckpointError(
                    f"{path}: tensor {stored!r} is given twice, also as {other.stored_name!r} "
                    f"in {other.file}"
                )
            found[meaning] = info
    return found


def _pairs(
    path: Path, tensors: Mapping[Meaning, TensorInfo], adapter: AdapterConfig, base: Checkpoint
) -> Iterator[tuple[str, Pair]]:
    targets = sorted({meaning.target for meaning in tensors if meaning.role != "replacement"})
    for target in targets:
        a = tensors.get(Meaning(role="A", target=target))
        b = tensors.get(Meaning(role="B", target=target))
        if a is None or b is None:
            there, missing = (a, "B") if b is None else (b, "A")
            assert there is not None, "one of them named the target"
            raise CheckpointError(f"{path}: tensor {there.stored_name!r} has no lora_{missing}")
        shape = base.tensors[target].shape
        if len(shape) != 2:
            raise CheckpointError(
                f"{path}: tensor {a.stored_name!r} adapts {target}, which is {list(shape)}; only "
                "matrices are merged"
            )
        rank = adapter.rank
        for info, expected in ((a, (rank, shape[1])), (b, (shape[0], rank))):
            if info.shape != expected:
                raise CheckpointError(
                    f"{path}: tensor {info.stored_name!r} is {list(info.shape)}, expected "
                    f"{list(expected)} (rank {rank}, weight {list(shape)})"
                )
        yield target, Pair(a=a, b=b)


def _replaced(
    folder: Path, tensors: Mapping[Meaning, TensorInfo], base: Checkpoint
) -> Iterator[tuple[str, TensorInfo]]:
    for meaning, info in tensors.items():
        if meaning.role != "replacement":
            continue
        expected = base.tensors[meaning.target].shape
        if info.shape != expected:
            raise CheckpointError(
                f"{folder / info.file}: tensor {info.stored_name!r} is {list(info.shape)}, "
                f"the base's is {list(expected)}"
            )
        yield meaning.target, info


def _check_targets(
    path: Path, pairs: Mapping[str, Pair], adapter: AdapterConfig, base: Checkpoint
) -> None:
    """The adapter's config names the layers it was trained for: a file that was cut off shows."""
    if adapter.target_modules is None:
        if not pairs:
            raise CheckpointError(f"{path}: holds no LoRA matrices")
        return
    ends = tuple(f".{name}.weight" for name in adapter.target_modules)
    meant = {
        name
        for name, info in base.tensors.items()
        if name.startswith(_LAYERS) and len(info.shape) == 2 and f".{name}".endswith(ends)
    }
    missing = sorted(meant - pairs.keys())
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} layers that adapter_config.json names have no matrices, "
            f"first {missing[0].removesuffix('.weight')!r}",
            hint="the file is of another training, or was cut off; fetch or write it again",
        )
    extra = sorted(name for name in pairs if not f".{name}".endswith(ends))
    if extra:
        stored = pairs[extra[0]].a.stored_name
        raise CheckpointError(
            f"{path}: tensor {stored!r} is of a layer that adapter_config.json does not name"
        )


def _check_tie(folder: Path, changed: set[str], base: Checkpoint) -> None:
    """Where head and embedding are one in the base, a change of one is a change of which?"""
    touched = changed & {EMBED_TOKENS, LM_HEAD}
    if base.tied and len(touched) == 1:
        raise CheckpointError(
            f"{folder}: changes {touched.pop()} alone, but in the base the output head is the "
            "embedding",
            hint="merge the adapter with PEFT, and give the merged checkpoint",
        )
