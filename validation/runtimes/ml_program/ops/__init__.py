"""Op implementations, one file per family."""
