"""A long-lived process that keeps templates of bundles, and answers events in forks of them."""
