"""coremltools names what it makes by counters of the whole process."""


def count_names_from_zero() -> None:
    """Forget what other code of this process has counted.

    A conversion sets the counters back when it ends, but not when it fails, and a program that was
    built by hand never does: names of the next package would tell of it. Call it before a
    conversion, inside `quiet_coremltools`.
    """
    from coremltools.converters.mil.mil import Builder

    Builder.name_count.clear()
