"""Which consumers there are: data; a module is imported when its consumer is checked."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from validation.consumers.outcome import Environment, Outcome

Check = Callable[[Path, Environment], tuple[Outcome, ...]]


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """One row of the registry.

    Attributes:
        name: as its outcomes call it.
        module: with `check`, in this package.
        environment: folder of `Environment.root` that it runs in; empty for our own interpreter.
    """

    name: str
    module: str
    environment: str

    def load(self) -> Check:
        """Imports the module; its `check`."""
        module = importlib.import_module(f"{__package__}.{self.module}")
        return cast(Check, module.check)


CONSUMERS = (
    Consumer(name="onnxruntime", module="plain_onnxruntime", environment="venv-onnxruntime"),
    Consumer(name="transformers.js", module="transformers_js", environment="node"),
    Consumer(name="transformers.js in a browser", module="browser", environment="node"),
    Consumer(name="onnxruntime-genai", module="onnxruntime_genai", environment="venv-genai"),
    Consumer(name="mlx-vlm", module="mlx_vlm", environment="venv-mlx-vlm"),
    Consumer(name="apple app", module="apple_app", environment=""),
    Consumer(name="transformers", module="transformers_fast_vlm", environment="venv-transformers"),
    Consumer(name="coremltools", module="coremltools_load", environment=""),
)
