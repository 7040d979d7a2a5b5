"""The code that a bundle ships: project files, code pack, import cache."""
