"""Ops that take parts of a tensor, write into parts of it, or turn it around."""

import torch
from torch import Tensor

from validation.runtimes.ml_program.op import (
    INTEGER,
    Kernel,
    moves,
    required,
    setting,
    tensor,
)
from validation.runtimes.ml_program.values import Values
from validation.runtimes.ml_program.view import OpView, Unsupported


class _Slices:
    """Numpy-style slices from `begin`, `end`, `stride` and the three masks."""

    def __init__(self, view: OpView) -> None:
        rank = view.rank("x")
        self._begin = view.running_integers("begin")
        self._end = view.running_integers("end")
        self._strides = view.integers("stride", (1,) * rank)
        self._begin_mask = view.flags("begin_mask", (False,) * rank)
        self._end_mask = view.flags("end_mask", (False,) * rank)
        self._squeeze = view.flags("squeeze_mask", (False,) * rank)
        for name, given in (
            ("stride", self._strides),
            ("begin_mask", self._begin_mask),
            ("end_mask", self._end_mask),
            ("squeeze_mask", self._squeeze),
        ):
            if len(given) != rank:
                raise Unsupported(f"{name} {given} does not fit rank {rank}")
        if 0 in self._strides:
            raise Unsupported("stride 0")

    def ranges(self, values: Values, shape: torch.Size) -> list[range]:
        """The indices taken along each dimension."""
        begins, ends = self._begin(values), self._end(values)
        if len(begins) != len(shape) or len(ends) != len(shape):
            raise ValueError(f"begin {begins} and end {ends} do not fit rank {len(shape)}")
        found = []
        for axis, size in enumerate(shape):
            begin = None if self._begin_mask[axis] else begins[axis]
            if self._squeeze[axis]:
                index = begin or 0
                index += size if index < 0 else 0
                if not 0 <= index < size:
                    raise ValueError(f"index {index} lies outside dimension {axis} of {size}")
                found.append(range(index, index + 1))
                continue
            end = None if self._end_mask[axis] else ends[axis]
            found.append(range(*slice(begin, end, self._strides[axis]).indices(size)))
        return found

    def squeezed(self) -> tuple[int, ...]:
        """Dimensions that are dropped."""
        return tuple(axis for axis, drop in enumerate(self._squeeze) if drop)


def _take(x: Tensor, ranges: list[range]) -> Tensor:
    """A view where all steps are forward, else a copy."""
    for axis, taken in enumerate(ranges):
        if taken.step > 0:
            if len(taken) != x.shape[axis]:
                index = [slice(None)] * axis + [slice(taken.start, taken.stop, taken.step)]
                x = x[tuple(index)]
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64))
    return x


def _slice_by_index(view: OpView) -> Kernel:
    slices = _Slices(view)
    squeezed = slices.squeezed()

    def run(values: Values) -> Tensor:
        x = values["x"]
        taken = _take(x, slices.ranges(values, x.shape))
        return taken.squeeze(squeezed) if squeezed else taken

    return run


def _slice_update(view: OpView) -> Kernel:
    slices = _Slices(view)

    def run(values: Values) -> Tensor:
        x = values["x"] if values.owned else values["x"].clone()
        ranges = slices.ranges(values, x.shape)
        part = tuple(_forward(taken) for taken in ranges)
        turned = [axis for axis, taken in enumerate(ranges) if taken.step < 0]
        target = x[part]
        update = values["update"].reshape([len(taken) for taken in ranges])
        target.copy_(update.flip(turned) if turned else update)
        return x

    return run


def _forward(taken: range) -> slice:
    """The same indices in rising order."""
    if taken.step < 0:
        taken = taken[::-1]
    return slice(taken.start, taken.stop, taken.step)


def _slice_by_size(view: OpView) -> Kernel:
    begin, size = view.running_integers("begin"), view.running_integers("size")

    def run(values: Values) -> Tensor:
        x = values["x"]
        starts, lengths = begin(values), size(values)
        if len(starts) != x.dim() or len(lengths) != x.dim():
            raise ValueError(f"begin {starts} and size {lengths} do not fit rank {x.dim()}")
        for axis, (first, wanted) in enumerate(zip(starts, lengths, strict=True)):
            start = first + x.shape[axis] if first < 0 else first
            x = x.narrow(axis, start, x.shape[axis] - start if wanted == -1 else wanted)
        return x

    return run


def _crop(view: OpView) -> Kernel:
    height, width = view.integers("crop_height"), view.integers("crop_width")
    if len(height) != 2 or len(width) != 2:
        raise Unsupported("crop_height and crop_width take two elements each")

    def run(values: Values) -> Tensor:
        x = values["x"]
        rows, columns = x.shape[-2:]
        return x[..., height[0] : rows - height[1], width[0] : columns - width[1]]

    return run


def _sliding_windows(view: OpView) -> Kernel:
    rank = view.rank("x")
    axis, size = view.integer("axis") % rank, view.integer("size")
    stride = view.integer("stride", 1)

    def run(values: Values) -> Tensor:
        return values["x"].unfold(axis, size, stride).movedim(-1, axis + 1)

    return run


def _reverse(view: OpView) -> Kernel:
    axes = view.integers("axes", range(view.rank("x")))

    def run(values: Values) -> Tensor:
        return values["x"].flip(axes)

    return run


def _reverse_sequence(view: OpView) -> Kernel:
    rank = view.rank("x")
    sequence, batch = view.integer("seq_axis") % rank, view.integer("batch_axis") % rank

    def run(values: Values) -> Tensor:
        x, lengths = values["x"], values["lengths"].to(torch.int64)
        place = torch.arange(x.shape[sequence])[None, :]
        index = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
        turned = index if batch < sequence else index.T
        shape = [size if axis in (sequence, batch) else 1 for axis, size in enumerate(x.shape)]
        return x.gather(sequence, turned.reshape(shape).expand(x.shape))

    return run


_PLACES = (
    tensor("begin", INTEGER),
    tensor("end", INTEGER),
    setting("stride"),
    setting("begin_mask"),
    setting("end_mask"),
    setting("squeeze_mask"),
)

DEFINITIONS = (
    moves("slice_by_index", (tensor("x"), *_PLACES), _slice_by_index),
    moves("slice_update", (tensor("x"), tensor("update"), *_PLACES), _slice_update, since=8),
    moves(
        "slice_by_size",
        (tensor("x"), tensor("begin", INTEGER), tensor("size", INTEGER)),
        _slice_by_size,
    ),
    moves("crop", (tensor("x"), required("crop_height"), required("crop_width")), _crop),
    moves(
        "sliding_windows",
        (tensor("x"), required("axis"), required("size"), setting("stride")),
        _sliding_windows,
    ),
    moves("reverse", (tensor("x"), setting("axes")), _reverse),
    moves(
        "reverse_sequence",
        (tensor("x"), tensor("lengths", INTEGER), setting("seq_axis"), setting("batch_axis")),
        _reverse_sequence,
    ),
)
