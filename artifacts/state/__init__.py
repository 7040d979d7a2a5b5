"""A state on disk: the skeleton, its tensor storages, and what pickling would lose."""
