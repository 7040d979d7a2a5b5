"""Replay of arrivals: real starts, driven open loop by when requests came. Nothing in here imports torch but bundle_instance."""
