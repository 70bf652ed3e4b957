"""What people load a bundle with, run for real, each in an environment of its own.

A consumer is a module with `check(bundle, environment) -> tuple[Outcome, ...]`, and a row in
`registry.py`. It writes the questions down (`golden_cases.py`), has a small driver ask them in
another interpreter (`driving.py`, `drivers/`), and compares what comes back with the goldens.
"""
