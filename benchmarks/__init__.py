"""Figures that the documentation claims, and the scripts that measure them."""
