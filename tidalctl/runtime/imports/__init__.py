"""Imports of a start: code pack, import cache, read-ahead, shared libraries."""
