"""The second moments that GPTQ rounds by, kept as the inputs that they are the mean of.

H = X^T X + damping with T inputs X [T, F]: where T is far below F, products with X cost 2T/F of
those with H, and a factor of H needs none of it. Let r be the columns after those of a chunk c in
the order of rounding, and N = (1 + X_r X_r^T / damping)^-1, which is [T, T]. Then

    H[a, c] - H[a, r] H[r, r]^-1 H[r, c] = X_a^T N X_c,   for columns a before c,

which is U_ac D_c U_cc^T (the left side is a Schur complement, the right one what is left of
H = U D U^T; Woodbury's identity makes the inverse small). So the errors of all columns before c
are needed as errors times X^T alone, and N follows from chunk to chunk, from the last to the first,
by the same identity.
"""

from dataclasses import dataclass

import numpy as np

from fastvlm_compile.quantize.curvature import Doubles, Flags, Indices, Slope
from fastvlm_compile.quantize.gptq_descent import COLUMNS
from fastvlm_compile.quantize.gptq_factors import HessianError, with_damping
from fastvlm_compile.quantize.products import add_product, cholesky, product, solve_upper
from fastvlm_compile.quantize.tensor import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class InputRows:
    """Inputs x of a layer, float32 [T, F], whose second moments are meant."""

    rows: Floats

    @staticmethod
    def is_shorter(num_rows: int, num_inputs: int) -> bool:
        """Whether T rows of F inputs are worked with sooner than their [F, F] moments."""
        return 2 * num_rows <= num_inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class RowMoments:
    """Checked inputs.

    Attributes:
        rows: [T, F], X with H = X^T X in units of the mean of its diagonal above 0.
        diagonal: of H [F]; 1 for inputs that are always 0.
    """

    rows: Floats
    diagonal: Doubles

    def curvature(self, order: Indices, percent_damp: float) -> "RowCurvature":
        """H damped, and its factor in the given order of columns.

        Raises:
            HessianError: no damping makes it definite.
        """
        ordered = np.ascontiguousarray(self.rows[:, order])
        inside: list[Floats] = []

        def factorise(damping: float) -> Floats:
            inside[:], pulls = _factor(ordered, damping)
            return pulls

        pulls, damping = with_damping(factorise, percent_damp)
        dead = np.where(self.rows.any(axis=0), 0.0, 1.0)
        return RowCurvature(
            rows=self.rows,
            added=(dead + damping).astype(np.float32),
            order=order,
            ordered=ordered,
            pulls=pulls,
            insides=tuple(inside),
        )


def check_rows(given: InputRows, size: int) -> RowMoments:
    """Inputs fit to be used.

    Raises:
        HessianError: one is not finite.
    """
    assert given.rows.shape[1] == size, f"inputs {given.rows.shape} of {size}"
    diagonal = np.square(given.rows, dtype=np.float64).sum(axis=0)
    if not np.isfinite(diagonal).all():
        raise HessianError(
            "the inputs of a layer are not finite",
            hint="look for NaN and infinity in the model",
        )
    alive = diagonal > 0
    mean = float(diagonal[alive].mean()) if alive.any() else 1.0
    return RowMoments(
        rows=given.rows / np.float32(np.sqrt(mean)),
        diagonal=np.where(alive, diagonal / mean, 1.0),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RowCurvature:
    """A `Curvature` of inputs.

    Attributes:
        rows: X [T, F].
        added: to the diagonal of X^T X [F].
        order: of rounding [F].
        ordered: X in that order [T, F].
        pulls: what errors times X^T are multiplied by to move a column [T, F], in that order.
        insides: U of H = U D U^T among the columns of each chunk [C, C].
    """

    rows: Floats
    added: Floats
    order: Indices
    ordered: Floats
    pulls: Floats
    insides: tuple[Floats, ...]

    def part(self, rows: slice, columns: slice) -> Floats:
        """H[rows, columns]."""
        part = product(self.rows[:, rows].T, self.rows[:, columns])
        same = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
        part[same - rows.start, same - columns.start] += self.added[same]
        return part

    def times(self, values: Floats, rows: slice, columns: slice) -> Floats:
        """[O, C]: values [O, R] times H[rows, columns]."""
        if rows.stop - rows.start <= COLUMNS:
            return product(values, self.part(rows, columns))
        result = product(product(values, self.rows[:, rows].T), self.rows[:, columns])
        start, stop = max(rows.start, columns.start), min(rows.stop, columns.stop)
        same = slice(start - rows.start, stop - rows.start)
        result[:, start - columns.start : stop - columns.start] += (
            values[:, same] * self.added[start:stop]
        )
        return result

    def feedback(self) -> "_RowFeedback":
        """For rows that begin to be rounded."""
        return _RowFeedback(self)

    def slope(self, errors: Floats) -> "_RowSlope":
        """Of errors [O, F]."""
        return _RowSlope(self, errors, product(errors, self.rows.T))


class _RowFeedback:
    def __init__(self, curvature: RowCurvature) -> None:
        self._curvature = curvature
        self._seen: Floats | None = None
        self._done = 0

    def pull(self, errors: Floats, columns: slice) -> Floats:
        seen = self._all_seen(errors[:, self._done : columns.start])
        return product(seen, self._curvature.pulls[:, columns])

    def inside(self, columns: slice) -> Floats:
        chunk: int = columns.start // COLUMNS
        return self._curvature.insides[chunk]

    def slope(self, errors: Floats) -> "_RowSlope":
        seen = self._all_seen(errors[:, self._curvature.order[self._done :]])
        return _RowSlope(self._curvature, errors, seen)

    def _all_seen(self, new: Floats) -> Floats:
        """[O, T]: errors so far times X^T, given those [O, C] that it was not told of yet."""
        ordered = self._curvature.ordered
        if self._seen is None:
            self._seen = np.zeros((len(new), len(ordered)), dtype=np.float32)
        if new.shape[1]:
            columns = slice(self._done, self._done + new.shape[1])
            add_product(self._seen, new, ordered[:, columns].T)
            self._done = columns.stop
        return self._seen


class _RowSlope:
    def __init__(self, curvature: RowCurvature, errors: Floats, seen: Floats) -> None:
        self._curvature = curvature
        self._errors = errors
        self._seen = seen

    def row_errors(self) -> Doubles:
        seen: Doubles = np.square(self._seen, dtype=np.float64).sum(axis=1)
        own: Floats = np.square(self._errors) * self._curvature.added
        seen += own.sum(axis=1, dtype=np.float64)
        return seen

    def take(self, rows: Flags, other: Slope) -> None:
        assert isinstance(other, _RowSlope)
        self._seen[rows] = other._seen[rows]

    def at(self, columns: slice) -> Floats:
        gradient: Floats = np.multiply(self._errors[:, columns], self._curvature.added[columns])
        add_product(gradient, self._seen, self._curvature.rows[:, columns])
        return gradient

    def changed(self, columns: slice, change: Floats) -> None:
        add_product(self._seen, change, self._curvature.rows[:, columns].T)


def _factor(ordered: Floats, damping: float) -> tuple[list[Floats], Floats]:
    """`RowCurvature.insides` and `.pulls`.

    Raises:
        numpy.linalg.LinAlgError: H is not positive definite with so little damping.
    """
    if damping <= 0:
        raise np.linalg.LinAlgError("fewer inputs than columns")
    num_rows, num_columns = ordered.shape
    pulls: Floats = np.empty_like(ordered)
    insides: list[Floats] = []
    narrowed: Doubles = np.eye(num_rows)
    for start in reversed(range(0, num_columns, COLUMNS)):
        columns = slice(start, min(start + COLUMNS, num_columns))
        x = ordered[:, columns].astype(np.float64)
        seen = product(narrowed, x)
        schur = product(x.T, seen)
        schur[np.diag_indices_from(schur)] += damping
        # S = U D U^T: the Cholesky factor of S with rows and columns turned round, turned back.
        upper = cholesky(np.ascontiguousarray(schur[::-1, ::-1]))[::-1, ::-1]
        strength = np.diag(upper).copy()
        half = solve_upper(upper, seen.T)
        add_product(narrowed, -half.T, half)
        pulls[:, columns] = half.T / strength
        insides.append((upper / strength).astype(np.float32))
    return insides[::-1], pulls
