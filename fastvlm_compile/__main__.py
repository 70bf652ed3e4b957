"""`python -m fastvlm_compile` is `fastvlm-compile`."""

from fastvlm_compile.cli import main

main()
