"""Times every phase of an opened variant, in this process."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fastvlm_compile.latency.inputs import Inputs
from fastvlm_compile.latency.subject import Subject
from fastvlm_compile.latency.timing import MOST_RUNS, elapsed, kept, time_runs
from fastvlm_compile.latency.work import Bounds
from reference.decoding import Logits, Session
from reference.prompt import IMAGE_SENTINEL
from validation.latency.samples import (
    DECODE,
    EMBEDDING,
    END_TO_END,
    FIRST_TOKEN,
    LOAD,
    PREFILL,
    VISION,
    Phase,
    Settings,
    Work,
    kind_of,
)
from validation.runtimes.base import Floats, Ids

Tell = Callable[[str], None]

_LOADS = 8
_STEPS_OF_A_SESSION = 32
"""A new session then: the cache must not grow with the number of runs."""
_TOLD_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Samples of a phase before its work is known."""

    name: str
    samples_s: tuple[float, ...]
    num_items: int = 1
    item: str = ""


class Stopwatch:
    """Times the phases of a variant one after the other.

    Args:
        inputs: what it is given.
        settings: how often.
        num_new_tokens: of each answer, however it ends.
        tell: told the phase that begins, and now and then how many runs of it are done.
    """

    def __init__(self, inputs: Inputs, settings: Settings, num_new_tokens: int, tell: Tell) -> None:
        self._inputs = inputs
        self._settings = settings
        self._num_new_tokens = num_new_tokens
        self._tell = tell
        self._told_s = 0.0
        self._timed: list[_Timed] = []

    def time_all(self, subject: Subject) -> None:
        """All phases but the load."""
        inputs = self._inputs
        self._tell("first run")  # which may compile
        features = subject.vision(inputs.pixels)
        self._phase(VISION, lambda: subject.vision(inputs.pixels), item="image")
        text = np.where(inputs.prompt_ids == IMAGE_SENTINEL, 0, inputs.prompt_ids)[None]

        def embed() -> None:
            subject.embed(text)
            if subject.project is not None:
                subject.project(features)

        self._phase(EMBEDDING, embed)
        for length in fitting(self._settings.prompt_lengths, inputs.contract.context_length):
            self._prefill(subject, length)
        if holds_an_answer(inputs):
            self._decode(subject)
            self._answers(subject)

    def time_loads(self, reopen: Callable[[], object]) -> None:
        """Opening again: last, and with nothing else open, for two models may be too large."""
        self._tell(LOAD)
        samples: list[float] = []
        for _ in range(min(_LOADS, self._settings.min_runs)):
            gc.collect()
            samples.append(elapsed(reopen))
            self._count(LOAD, len(samples))
        self._timed.insert(0, _Timed(name=LOAD, samples_s=tuple(samples)))

    @property
    def notes(self) -> list[str]:
        """What was not timed as it was asked for, and why."""
        context, lengths = self._context_length, self._settings.prompt_lengths
        room = f"the context has {context} positions"
        found = [
            f"{PREFILL}.{length} was left out: {room}"
            for length in lengths
            if length not in fitting(lengths, context)
        ]
        if not holds_an_answer(self._inputs):
            needed = self._inputs.num_prompt_positions
            behind = ", ".join((DECODE, FIRST_TOKEN, END_TO_END))
            found.append(f"{behind} were left out: {room}, image and question take {needed}")
        elif self._num_tokens < self._num_new_tokens:
            asked = self._num_new_tokens
            found.append(f"an answer has {self._num_tokens} tokens instead of {asked}: {room}")
        return found

    @property
    def _context_length(self) -> int:
        return self._inputs.contract.context_length

    def phases(self, bounds: Bounds) -> tuple[Phase, ...]:
        """What was timed, with its work."""
        return tuple(
            Phase(
                name=timed.name,
                blocks=(timed.samples_s,),
                num_items=timed.num_items,
                item=timed.item,
                work=self._work(timed, bounds),
            )
            for timed in self._timed
        )

    def _work(self, timed: _Timed, bounds: Bounds) -> Work | None:
        """None for a load: how much of a file it reads is the runtime's choice."""
        past = self._inputs.num_prompt_positions + self._steps // 2
        known: Mapping[str, Callable[[], Work | None]] = {
            LOAD: lambda: None,
            VISION: bounds.vision,
            EMBEDDING: bounds.embedding,
            PREFILL: lambda: bounds.append(timed.num_items, 0),
            DECODE: lambda: bounds.append(1, past),
            FIRST_TOKEN: bounds.first_token,
            END_TO_END: lambda: bounds.answer(timed.num_items),
        }
        return known[kind_of(timed.name)]()

    def _phase(
        self, name: str, run: Callable[[], object], *, num_items: int = 1, item: str = ""
    ) -> None:
        self._tell(name)
        limits = self._settings
        samples = time_runs(
            run,
            min_seconds=limits.min_seconds,
            min_runs=limits.min_runs,
            counted=lambda num_runs: self._count(name, num_runs),
        )
        self._timed.append(_Timed(name=name, samples_s=samples, num_items=num_items, item=item))

    def _count(self, name: str, num_runs: int) -> None:
        """Tells it where the last word is old: a phase may take minutes."""
        if time.monotonic() - self._told_s >= _TOLD_EVERY_S:
            self._told_s = time.monotonic()
            self._tell(f"{name}, run {num_runs}")

    def _prefill(self, subject: Subject, length: int) -> None:
        embeds = subject.embed(self._inputs.text_ids(length))
        self._phase(
            f"{PREFILL}.{length}",
            lambda: subject.session(embeds).start(),
            num_items=length,
            item="token",
        )

    @property
    def _steps(self) -> int:
        """Of one session that decodes."""
        return min(_STEPS_OF_A_SESSION, self._room)

    @property
    def _room(self) -> int:
        """Positions behind the question with its image."""
        return self._context_length - self._inputs.num_prompt_positions

    def _decode(self, subject: Subject) -> None:
        """One step a sample, behind the question with its image."""
        self._tell(DECODE)
        embeds = self._prompt_embeds(subject)
        limits, samples, spent = self._settings, list[float](), 0.0
        warm = False
        while len(samples) < limits.min_runs or (
            spent < limits.min_seconds and len(samples) < MOST_RUNS
        ):
            session = subject.session(embeds)
            token = _best(session.start())
            times = []
            for _ in range(self._steps):
                started = time.perf_counter()
                token = _best(session.step(token))
                times.append(kept(time.perf_counter() - started))
            if warm:
                samples += times
                spent += sum(times)
            self._count(DECODE, len(samples))
            warm = True  # the first session is the warm-up
        self._timed.append(_Timed(name=DECODE, samples_s=tuple(samples), item="token"))

    def _answers(self, subject: Subject) -> None:
        """Image and question in, so many tokens out: two phases from the same runs."""
        self._tell(END_TO_END)
        limits = self._settings
        first: list[float] = []
        whole: list[float] = []
        self._answer(subject)
        while len(whole) < limits.min_runs or (
            sum(whole) < limits.min_seconds and len(whole) < MOST_RUNS
        ):
            first_s, whole_s = self._answer(subject)
            first.append(first_s)
            whole.append(whole_s)
            self._count(END_TO_END, len(whole))
        count = self._num_tokens
        self._timed += [
            _Timed(name=FIRST_TOKEN, samples_s=tuple(first)),
            _Timed(name=END_TO_END, samples_s=tuple(whole), num_items=count, item="token"),
        ]

    @property
    def _num_tokens(self) -> int:
        return min(self._num_new_tokens, 1 + self._room)  # the first one takes no step

    def _answer(self, subject: Subject) -> tuple[float, float]:
        """Seconds to the first token and to the last."""
        started = time.perf_counter()
        session: Session = subject.session(self._prompt_embeds(subject))
        token = _best(session.start())
        first = time.perf_counter()
        for _ in range(self._num_tokens - 1):
            token = _best(session.step(token))
        return kept(first - started), kept(time.perf_counter() - started)

    def _prompt_embeds(self, subject: Subject) -> Floats:
        """[1, L, H] of the question, the image in its place."""
        ids = self._inputs.prompt_ids
        place = int(np.flatnonzero(ids == IMAGE_SENTINEL)[0])
        image = subject.encode_image(self._inputs.pixels)
        text = subject.embed(np.where(ids == IMAGE_SENTINEL, 0, ids)[None])
        return np.concatenate([text[:, :place], image, text[:, place + 1 :]], axis=1)


def phase_names(inputs: Inputs, settings: Settings) -> tuple[str, ...]:
    """All that a `Stopwatch` times, in its order."""
    prefills = fitting(settings.prompt_lengths, inputs.contract.context_length)
    answers = (DECODE, FIRST_TOKEN, END_TO_END) if holds_an_answer(inputs) else ()
    return (LOAD, VISION, EMBEDDING, *(f"{PREFILL}.{length}" for length in prefills), *answers)


def holds_an_answer(inputs: Inputs) -> bool:
    """Whether the context has a position behind the question with its image."""
    return inputs.num_prompt_positions < inputs.contract.context_length


def fitting(lengths: tuple[int, ...], context_length: int) -> tuple[int, ...]:
    """The lengths that leave room for a token."""
    return tuple(length for length in lengths if length < context_length)


def _best(logits: Logits) -> Ids:
    """The greedy token, int64 [1]."""
    return np.asarray(logits.argmax(axis=-1), dtype=np.int64)
