"""The package's version, which the root repeats; kept apart so that no module imports upwards."""

__version__ = "0.1.0"
