"""Simulates a start from the times that compile measured."""
