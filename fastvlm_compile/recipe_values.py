"""Values of a recipe with a condition beyond their type."""

from typing import Annotated

from fastvlm_compile.structure import Rule

Text = Annotated[str, Rule(holds=lambda value: bool(value.strip()), expected="a text")]
Count = Annotated[int, Rule(holds=lambda value: value >= 1, expected="a whole number above 0")]
CountOrNone = Annotated[int, Rule(holds=lambda value: value >= 0, expected="a whole number from 0")]
FurtherSize = Annotated[
    int,
    Rule(
        holds=lambda n: 256 <= n <= 1024 and n % 64 == 0,
        expected="a multiple of 64 from 256 to 1024",
    ),
]
