"""Encoding and serving on a Ray cluster; imported only if the engine `ray` is chosen."""
