"""Architectures and optimizers, compared: a grid, each of its combinations, and the table and curves of all."""
