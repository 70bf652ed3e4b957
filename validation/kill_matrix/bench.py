"""Where damaged files are run: against the goldens, on random inputs, and from image to answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from reference.generation import generate
from validation.answer import splice
from validation.goldens import GoldenCase, Goldens
from validation.runtimes.chunked_decoder import ChunkProgram
from validation.runtimes.core_ml_paths import EMBEDDING, PROJECTOR, VISION, packages_in_folder
from validation.runtimes.language_layout import LanguageLayout, read_layout
from validation.runtimes.ml_program.executable import Rounding, load
from validation.runtimes.ml_program.state import State
from validation.runtimes.ml_program_runtime import ExecutedChunk, executed_program
from validation.runtimes.packages_runtime import PackagesRuntime
from validation.runtimes.sized_program import PlainProgram

NUM_RANDOM = 3
"""Random inputs on which an equivalent fault must change nothing."""

MIN_STEADY = 0.8
"""As the recipe asks of float16: in so many answers no near tie may fall the other way."""

COMPONENTS = {VISION: "vision", PROJECTOR: "projector", EMBEDDING: "embedding"}
"""What each file computes; every other file belongs to the decoder."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What was expected and what came out."""

    component: str
    case: str
    expected: np.ndarray
    found: np.ndarray


class Bench(Protocol):
    """Runs the files of a folder, one of which may be damaged."""

    def pairs(self, folder: Path, file: str) -> Iterator[Pair]:
        """What `file` computes beside the goldens, case after case."""
        ...

    def answers(self, folder: Path) -> Iterator[tuple[str, bool]]:
        """Golden case and whether the greedy answer is the reference's, token for token."""
        ...

    def random_outputs(self, folder: Path, file: str) -> list[np.ndarray]:
        """What `file` makes of random inputs, the same at every call."""
        ...


class ModelBench:
    """A bench of a whole model.

    Args:
        goldens: what the reference computed.
        folder: the intact files; a package that a damaged folder links to is opened once.
        rounding: of the executor.
    """

    def __init__(self, goldens: Goldens, folder: Path, rounding: Rounding) -> None:
        self._rounding = rounding
        self._goldens = goldens
        self._opened: dict[Path, ExecutedChunk] = {}
        self._intact = folder.resolve()
        self._arrays: dict[str, np.ndarray] = {}
        self._of_intact: dict[str, list[np.ndarray]] = {}

    @cached_property
    def layout(self) -> LanguageLayout:
        """The intact decoder's."""
        return read_layout(self._intact)

    @cached_property
    def cases(self) -> tuple[GoldenCase, ...]:
        """The golden prompts that fit the context: the longest first, then those of many tokens."""
        fitting = [
            case
            for case in self._goldens.index.cases
            if len(self._array(f"cases/{case.id}/inputs_embeds")) <= self.layout.context_length
        ]
        longest = max(fitting, key=lambda case: case.prompt_length)
        return (longest, *(case for case in fitting if case is not longest))

    @cached_property
    def _sides(self) -> tuple[int, ...]:
        """All sizes of images that the tower takes."""
        return (self._goldens.shape.image_size, *self._goldens.index.image_sizes)

    def pairs(self, folder: Path, file: str) -> Iterator[Pair]:
        """See `Bench`."""
        runtime = self._runtime(folder)
        component = COMPONENTS.get(file, "decoder")
        if component == "decoder":
            yield from self._decoder(runtime)
        elif component == "embedding":
            found = runtime.embed(self._array("embedding/ids")[None])[0]
            yield Pair(
                component=component,
                case="all rows",
                expected=self._array("embedding/rows"),
                found=found,
            )
        else:
            for image in self._goldens.index.all_image_ids:
                features = self._array(f"images/{image}/vision_features")[None]
                if component == "vision":
                    pixels = self._array(f"images/{image}/pixel_values")[None]
                    expected, found = features, runtime.vision_features(pixels)
                else:
                    expected = self._array(f"images/{image}/image_features")[None]
                    found = runtime.project(features)
                yield Pair(component=component, case=image, expected=expected, found=found)

    def answers(self, folder: Path) -> Iterator[tuple[str, bool]]:
        """See `Bench`. Cases that turn without any fault, by rounding alone, are not asked."""
        runtime = self._runtime(folder)
        for case in self._asked:
            yield case.id, self._agrees(runtime, case)

    @cached_property
    def _asked(self) -> tuple[GoldenCase, ...]:
        cases = tuple(case for case in self.cases if case.generated)
        if self._rounding == "none":
            return cases
        runtime = self._runtime(self._intact)
        steady = tuple(case for case in cases if self._agrees(runtime, case))
        return steady if len(steady) >= MIN_STEADY * len(cases) else cases

    def _agrees(self, runtime: "_Runtime", case: GoldenCase) -> bool:
        features = [
            runtime.encode_image(self._array(f"images/{image}/pixel_values")[None])[0]
            for image in case.image_ids
        ]
        ids = self._array(f"cases/{case.id}/prompt_ids")
        embeds = splice(runtime, ids, np.stack(features) if features else None)
        answer = generate(runtime.session(embeds), self._goldens.contract.greedy())
        return answer.token_ids == case.token_ids

    def random_outputs(self, folder: Path, file: str) -> list[np.ndarray]:
        """See `Bench`. The decoder's fill the whole context, through both functions."""
        component = COMPONENTS.get(file, "decoder")
        if folder.resolve() != self._intact:
            return self._random_outputs(folder, component)
        if component not in self._of_intact:
            self._of_intact[component] = self._random_outputs(folder, component)
        return self._of_intact[component]

    def _random_outputs(self, folder: Path, component: str) -> list[np.ndarray]:
        runtime = self._runtime(folder)
        shape = self._goldens.shape
        if component == "embedding":
            return [runtime.embed(np.arange(shape.vocab_size)[None])]
        found = []
        for seed in range(NUM_RANDOM):
            random = np.random.default_rng(seed)
            if component == "vision":
                for side in self._sides:
                    images = random.random((1, 3, side, side), dtype=np.float32)
                    found.append(runtime.vision_features(images))
            elif component == "projector":
                for side in self._sides:
                    num_tokens = shape.num_image_tokens * side**2 // shape.image_size**2
                    rows = random.standard_normal((1, num_tokens, shape.vision_channels))
                    found.append(runtime.project(rows.astype(np.float32)))
            else:
                context = (self.layout.context_length, shape.hidden_size)
                found += self._append(runtime, random.standard_normal(context, dtype=np.float32))
        return found

    def _append(self, runtime: PackagesRuntime[State], rows: np.ndarray) -> list[np.ndarray]:
        memory = runtime.decoder.new_memory()
        return [runtime.decoder.append(rows[at:end], memory) for at, end in self._uneven(len(rows))]

    def _uneven(self, length: int) -> list[tuple[int, int]]:
        """Bounds of pieces: a part of a chunk, one row, a chunk, and again."""
        chunk = self.layout.prefill_chunk
        sizes = [max(2, chunk // 4), 1, chunk, 1, 1]
        bounds = [0]
        while bounds[-1] < length:
            bounds.append(min(length, bounds[-1] + sizes[(len(bounds) - 1) % len(sizes)]))
        return list(pairwise(bounds))

    def _decoder(self, runtime: PackagesRuntime[State]) -> Iterator[Pair]:
        """The prompt at once and the answer token by token; then everything in uneven pieces."""
        for case in self.cases:
            embeds = self._array(f"cases/{case.id}/inputs_embeds")
            logits = self._array(f"cases/{case.id}/logits")
            limit = self._goldens.contract.vocab_limit
            steps = [(0, case.prompt_length)]
            steps += [(at, at + 1) for at in range(case.prompt_length, len(embeds))]
            for route in (steps, self._uneven(len(embeds))):
                memory = runtime.decoder.new_memory()
                for begin, end in route:
                    found = runtime.decoder.append(embeds[begin:end], memory)
                    row = end - 1 - case.first_logit
                    if row >= 0:
                        yield Pair(
                            component="decoder",
                            case=f"{case.id}, after position {end - 1}",
                            expected=logits[row, :limit],
                            found=found[:limit],
                        )

    def _runtime(self, folder: Path) -> "_Runtime":
        return _Runtime(packages_in_folder(folder), _Opener(self))

    def chunk(self, package: Path) -> ChunkProgram[State]:
        """A package of the decoder; intact ones are kept open."""
        found = package.resolve()
        if found in self._opened:
            return self._opened[found]
        program = ExecutedChunk(load(found, function="prefill"), self._rounding)
        if found.parent == self._intact:
            self._opened[found] = program
        return program

    def plain(self, package: Path) -> PlainProgram:
        """A package without state."""
        return executed_program(package, rounding=self._rounding)

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = self._goldens.array(name)
        return self._arrays[name]


class _Runtime(PackagesRuntime[State]):
    """The bundle's runtime but for the opener, which keeps intact packages open."""

    executor = "ML Program executor"
    executed_by_core_ml = False


class _Opener:
    def __init__(self, bench: ModelBench) -> None:
        self.plain = bench.plain
        self.chunk = bench.chunk


class PackageBench:
    """A bench of one package whose right outputs are given.

    Args:
        component: what the table calls it.
        inputs, expected: by case.
        random_inputs: for proofs of equivalence.
    """

    def __init__(
        self,
        component: str,
        inputs: Mapping[str, Mapping[str, np.ndarray]],
        expected: Mapping[str, np.ndarray],
        random_inputs: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        self._component = component
        self._inputs = inputs
        self._expected = expected
        self._random = random_inputs

    def pairs(self, folder: Path, file: str) -> Iterator[Pair]:
        """See `Bench`."""
        executable = load(folder / file)
        for case, inputs in self._inputs.items():
            (found,) = executable.run(inputs).values()
            expected = self._expected[case]
            yield Pair(component=self._component, case=case, expected=expected, found=found)

    def answers(self, folder: Path) -> Iterator[tuple[str, bool]]:
        """None: one package answers nothing."""
        del folder
        return iter(())

    def random_outputs(self, folder: Path, file: str) -> list[np.ndarray]:
        """See `Bench`."""
        executable = load(folder / file)
        return [next(iter(executable.run(inputs).values())) for inputs in self._random]
