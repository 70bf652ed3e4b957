"""Every op this executor implements."""

from validation.runtimes.ml_program.op import Table, table
from validation.runtimes.ml_program.ops import (
    activation,
    binary,
    conv,
    convert,
    create,
    gather,
    join,
    linear,
    matrix,
    normalization,
    pooling,
    reduction,
    resample,
    resize,
    scatter,
    shape,
    slicing,
    sort,
    spatial,
    unary,
)

TABLE: Table = table(
    [
        definition
        for family in (
            activation,
            binary,
            conv,
            convert,
            create,
            gather,
            join,
            linear,
            matrix,
            normalization,
            pooling,
            reduction,
            resample,
            resize,
            scatter,
            shape,
            slicing,
            sort,
            spatial,
            unary,
        )
        for definition in family.DEFINITIONS
    ]
)

# Handled by the interpreter itself, because they reach beyond their operands.
BUILT_IN = ("const", "read_state", "write_state", "cond", "while_loop")
