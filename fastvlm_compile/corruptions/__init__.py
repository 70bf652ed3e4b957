"""Do the checks of quantized artifacts bite? Saved files are damaged on purpose, fault by fault.

Each fault changes the bytes of a copy. Three judges look at it: identity (the file, read by a
decoder that shares nothing with its writer, bit for bit against the quantized checkpoint),
conversion (what a runtime makes of it against the reference with the same quantized weights) and
reference (the same against the float32 goldens). What no judge notices must be shown to decode to
the same numbers.

Read in this order: `stored.py` (a quantized tensor as its bytes lie in a file), one of the
`faults_*.py`, `artifacts.py` and one of `coreml.py`, `onnx.py`, `mlx.py`, then `matrix.py` (the
run) and `table.py` (what is printed).
"""
