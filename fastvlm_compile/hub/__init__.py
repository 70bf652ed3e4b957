"""A bundle on a model hub."""
