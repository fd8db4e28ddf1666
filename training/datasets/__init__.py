"""Sources of examples: find or fetch, verify, split."""
