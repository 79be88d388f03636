"""Checkpoints of the original implementations, in; the bundled models as standard ones, out."""
