"""Writes dynamic_init.py."""
