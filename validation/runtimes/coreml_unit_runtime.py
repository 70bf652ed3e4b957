"""Packages that run in a process of their own, as a runtime like any other."""

import json
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from reference.decoding import Ids, Logits
from validation.runtimes.base import Floats
from validation.runtimes.compute_plan import FunctionPlan
from validation.runtimes.core_ml_executor import Packages
from validation.runtimes.coreml_unit_messages import Call, CallName
from validation.runtimes.coreml_unit_process import UnitProcess
from validation.runtimes.embedding_table import EmbeddingTable
from validation.typed_json import from_plain


class UnitRuntime:
    """A `WholeModel` (or a `VisionExecutor`, where the tower alone was built) in another process.

    Embeddings are looked up here: they are a table, not a package.

    Args:
        process: has the packages open.
        packages: the same.
        executed_by_core_ml: whether the process runs Apple's Core ML.

    Raises:
        UnitEndedError: from every method once the process is gone.
        UnitRefusedError: from a method whose call failed.
    """

    def __init__(
        self, process: UnitProcess, packages: Packages, *, executed_by_core_ml: bool
    ) -> None:
        self._process = process
        self._packages = packages
        self._core_ml = executed_by_core_ml
        self._num_sessions = 0
        self._forgotten: list[int] = []

    @property
    def executed_by_core_ml(self) -> bool:
        """As given."""
        return self._core_ml

    @cached_property
    def executor(self) -> str:
        """What the process says that it is; the packages are found and the runtime is loaded."""
        return self._process.call(Call(name="executor")).text

    @cached_property
    def table(self) -> EmbeddingTable:
        """Rows by token."""
        assert self._packages.whole is not None, "the tower alone has no embedding"
        return EmbeddingTable(self._packages.whole.embedding)

    def vision_features(self, pixel_values: Floats) -> Floats:
        """[1, 3, S, S] in 0..1 -> [1, T, C], before the projector."""
        return self._run("vision_features", {"rows": pixel_values})["result"]

    def project(self, features: Floats) -> Floats:
        """[1, T, C] -> [1, T, H]."""
        return self._run("project", {"rows": features})["result"]

    def encode_image(self, pixel_values: Floats) -> Floats:
        """[B, 3, S, S] in 0..1 -> [B, T, H], projector included; one image at a time."""
        return np.concatenate(
            [self.project(self.vision_features(image[None])) for image in pixel_values]
        )

    def embed(self, input_ids: Ids) -> Floats:
        """[B, L] -> [B, L, H]."""
        return self.table.look_up(input_ids)

    def logits(self, inputs_embeds: Floats) -> Floats:
        """[B, L, H] -> [B, 1, V], after the last position."""
        return np.stack([self.logits_after([rows]) for rows in inputs_embeds])

    def logits_after(self, pieces: Sequence[Floats]) -> Floats:
        """Rows taken in piece by piece, [L, H] each -> [pieces, V], after each piece's last row."""
        arrays = {str(index): piece for index, piece in enumerate(pieces)}
        return self._run("logits_after", arrays)["result"]

    def session(self, inputs_embeds: Floats) -> "UnitSession":
        """A new decoding of the prompt [1, L, H]."""
        self._num_sessions += 1
        session = UnitSession(self, self._num_sessions, inputs_embeds)
        # Only noted here, as this may happen in the middle of a call; told with the next one.
        weakref.finalize(session, self._forgotten.append, self._num_sessions)
        return session

    def read_caches(self, rows: Floats) -> Mapping[str, np.ndarray]:
        """[L, H] -> the caches after L - 1 rows and after all, see `coreml_unit_states`."""
        return self._run("read_caches", {"rows": rows})

    def compute_plans(self) -> tuple[FunctionPlan, ...]:
        """Where the parts of every package would run."""
        plans = json.loads(self._process.call(Call(name="compute_plans")).text)
        return tuple(from_plain(plan, FunctionPlan) for plan in plans)

    def decode(self, name: CallName, session: int, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """A call of a session."""
        return self._run(name, {"rows": rows}, session=session)

    def _run(
        self, name: CallName, arrays: Mapping[str, np.ndarray], *, session: int = 0
    ) -> Mapping[str, np.ndarray]:
        forget, self._forgotten[:] = tuple(self._forgotten), []
        return self._process.call(Call(name=name, session=session, forget=forget), arrays).arrays


class UnitSession:
    """A `Session` whose cache lies in the other process.

    Args:
        runtime: of this process.
        number: the session's name there.
        prompt: [1, L, H].
    """

    def __init__(self, runtime: UnitRuntime, number: int, prompt: Floats) -> None:
        self._runtime = runtime
        self._number = number
        self._prompt = prompt

    def start(self) -> Logits:
        """Runs the prompt: logits after it, float32 [1, V]."""
        return self._runtime.decode("start", self._number, self._prompt)["result"]

    def step(self, token_ids: Ids) -> Logits:
        """Appends one token per row, [B]; the next logits, float32 [B, V]."""
        return self._runtime.decode("step", self._number, token_ids)["result"]

    def select(self, rows: Ids) -> None:
        """Row i becomes row `rows[i]`."""
        self._runtime.decode("select", self._number, rows)
