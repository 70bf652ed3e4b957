"""An executor of saved ML Programs (`.mlpackage`) on the CPU, without Core ML.

What it computes is what the package says, read from disk by code of its own; it is not what
Core ML computes, and results are to be reported so ("ML Program parity, not executed by Core ML").

A vision package in three lines::

    from validation.runtimes.ml_program.executable import load
    encoder = load(Path("fastvithd.mlpackage"))
    features = encoder.run({"images": pixels}, rounding="fp16")["image_features"]

(`encoder.inputs` and `encoder.outputs` tell names, shapes and types.) A stateful decoder takes
`state = decoder.make_state()` once and `decoder.run(inputs, state=state)` per step;
`decoder.with_function("decode")` is another function of the same package.

Read in this order: `program.py` (what a package holds), `decode.py` (how it is read), `op.py` and
one file of `ops/` (what an op is), `binder.py` (all checks), `interpreter.py` (the run).
"""
