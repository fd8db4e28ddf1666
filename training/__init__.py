"""Dataset -> published bundle."""
