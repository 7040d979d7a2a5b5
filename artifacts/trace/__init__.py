"""The trace file: its records, and reading and writing them."""
