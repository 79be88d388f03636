"""Loads checkpoints of the original implementations, and exports the bundled models."""
