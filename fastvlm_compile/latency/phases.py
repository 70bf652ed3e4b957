"""Times every phase of an opened variant, in this process."""

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
        subject: what is timed.
        inputs: what it is given.
        settings: how often.
        num_new_tokens: of each answer, however it ends.
        tell: told the phase that begins.
    """

    def __init__(
        self, subject: Subject, inputs: Inputs, settings: Settings, num_new_tokens: int, tell: Tell
    ) -> None:
        self._subject = subject
        self._inputs = inputs
        self._settings = settings
        self._num_new_tokens = num_new_tokens
        self._tell = tell
        self._timed: list[_Timed] = []

    def time_all(self) -> None:
        """All phases but the load."""
        subject, inputs = self._subject, self._inputs
        features = subject.vision(inputs.pixels)
        self._phase(VISION, lambda: subject.vision(inputs.pixels), item="image")
        text = np.where(inputs.prompt_ids == IMAGE_SENTINEL, 0, inputs.prompt_ids)[None]

        def embed() -> None:
            subject.embed(text)
            if subject.project is not None:
                subject.project(features)

        self._phase(EMBEDDING, embed)
        for length in fitting(self._settings.prompt_lengths, inputs.contract.context_length):
            self._prefill(length)
        self._decode()
        self._answers()

    def time_loads(self, reopen: Callable[[], object]) -> None:
        """Opening again; last, for what a second model takes must not count as peak memory."""
        self._tell(LOAD)
        runs = min(_LOADS, self._settings.min_runs)
        self._timed.insert(
            0, _Timed(name=LOAD, samples_s=tuple(elapsed(reopen) for _ in range(runs)))
        )

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
        samples = time_runs(run, min_seconds=limits.min_seconds, min_runs=limits.min_runs)
        self._timed.append(_Timed(name=name, samples_s=samples, num_items=num_items, item=item))

    def _prefill(self, length: int) -> None:
        embeds = self._subject.embed(self._inputs.text_ids(length))
        self._phase(
            f"{PREFILL}.{length}",
            lambda: self._subject.session(embeds).start(),
            num_items=length,
            item="token",
        )

    @property
    def _steps(self) -> int:
        """Of one session that decodes."""
        left = self._inputs.contract.context_length - self._inputs.num_prompt_positions
        return max(1, min(_STEPS_OF_A_SESSION, left))

    def _decode(self) -> None:
        """One step a sample, behind the question with its image."""
        self._tell(DECODE)
        embeds = self._prompt_embeds()
        limits, samples, spent = self._settings, list[float](), 0.0
        warm = False
        while len(samples) < limits.min_runs or (
            spent < limits.min_seconds and len(samples) < MOST_RUNS
        ):
            session = self._subject.session(embeds)
            token = _best(session.start())
            times = []
            for _ in range(self._steps):
                started = time.perf_counter()
                token = _best(session.step(token))
                times.append(kept(time.perf_counter() - started))
            if warm:
                samples += times
                spent += sum(times)
            warm = True  # the first session is the warm-up
        self._timed.append(_Timed(name=DECODE, samples_s=tuple(samples), item="token"))

    def _answers(self) -> None:
        """Image and question in, so many tokens out: two phases from the same runs."""
        self._tell(END_TO_END)
        limits = self._settings
        first: list[float] = []
        whole: list[float] = []
        self._answer()
        while len(whole) < limits.min_runs or (
            sum(whole) < limits.min_seconds and len(whole) < MOST_RUNS
        ):
            first_s, whole_s = self._answer()
            first.append(first_s)
            whole.append(whole_s)
        count = self._num_tokens
        self._timed += [
            _Timed(name=FIRST_TOKEN, samples_s=tuple(first)),
            _Timed(name=END_TO_END, samples_s=tuple(whole), num_items=count, item="token"),
        ]

    @property
    def _num_tokens(self) -> int:
        return min(self._num_new_tokens, self._steps)

    def _answer(self) -> tuple[float, float]:
        """Seconds to the first token and to the last."""
        started = time.perf_counter()
        session: Session = self._subject.session(self._prompt_embeds())
        token = _best(session.start())
        first = time.perf_counter()
        for _ in range(self._num_tokens - 1):
            token = _best(session.step(token))
        return kept(first - started), kept(time.perf_counter() - started)

    def _prompt_embeds(self) -> Floats:
        """[1, L, H] of the question, the image in its place."""
        ids = self._inputs.prompt_ids
        place = int(np.flatnonzero(ids == IMAGE_SENTINEL)[0])
        image = self._subject.encode_image(self._inputs.pixels)
        text = self._subject.embed(np.where(ids == IMAGE_SENTINEL, 0, ids)[None])
        return np.concatenate([text[:, :place], image, text[:, place + 1 :]], axis=1)


def fitting(lengths: tuple[int, ...], context_length: int) -> tuple[int, ...]:
    """The lengths that leave room for a token."""
    return tuple(length for length in lengths if length < context_length)


def _best(logits: Logits) -> Ids:
    """The greedy token, int64 [1]."""
    return np.asarray(logits.argmax(axis=-1), dtype=np.int64)
