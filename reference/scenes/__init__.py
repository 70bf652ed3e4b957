"""Rendered scenes with questions; start in `scene.py`."""
