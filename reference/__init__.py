"""The reference FastVLM in plain PyTorch, and everything around it that needs no PyTorch.

`reference.load(path)` is the door for users. It is resolved on first use, so that importing the
package's torch-free parts (`reference.preprocess`, `reference.prompt`, ...) stays light.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reference.fastvlm import FastVLM
    from reference.loading import load

__all__ = ["FastVLM", "load"]


def __getattr__(name: str) -> object:
    if name == "load":
        from reference.loading import load

        return load
    if name == "FastVLM":
        from reference.fastvlm import FastVLM

        return FastVLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
