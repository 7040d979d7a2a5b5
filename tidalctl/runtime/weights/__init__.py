"""Brings a bundle's weights into memory while the function computes."""
