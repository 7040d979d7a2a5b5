"""Records one call of init (strict: what it read and what it made)."""
