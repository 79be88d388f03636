"""Encoding and serving on a Ray cluster; imported only where `ray` is asked for by name."""
