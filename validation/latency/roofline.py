"""How near a phase comes to what the machine can do.

Source: Williams, Waterman and Patterson, 'Roofline', CACM 52 (2009). A phase takes at least as long
as reading its bytes from memory, and as its operations in float32. Above 1 means that a cache held
the weights (as of a tiny model), or that a kernel is faster than the machine's measure, numpy's own
float32 product: one that multiplies in fewer bits, or uses wider registers.
"""

from dataclasses import dataclass
from typing import Literal

from validation.latency.samples import Roofline, Work


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least time that a phase can take."""

    seconds: float
    limit: Literal["reading", "sgemm"]

    def fraction(self, measured_s: float) -> float:
        """Of the bound that is reached: 1 is all that the machine has."""
        return self.seconds / measured_s


def bound_of(work: Work, roofline: Roofline) -> Bound:
    """The larger of the two times."""
    reading = work.bytes_read / roofline.read_bytes_per_s
    computing = work.operations / roofline.sgemm_flop_per_s
    if reading >= computing:
        return Bound(seconds=reading, limit="reading")
    return Bound(seconds=computing, limit="sgemm")
