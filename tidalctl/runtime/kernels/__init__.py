"""Kernels of a start, launched ahead on scratch operands."""
