"""Do the gates have teeth? Saved packages are damaged on purpose, one fault at a time.

Each fault is written to a copy of the files, run in the ML Program executor, and judged against the
goldens by the gates that judge a build. What no gate notices must be shown to change nothing.

Read in this order: `mutation.py` (what a fault is), one of the `faults_*.py` (where they come
from), `judge.py` (how they are caught), `matrix.py` (the run), `table.py` (what is printed).
"""
