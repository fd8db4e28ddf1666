"""Backends beside TorchScript: converted, quantized, judged on held-out examples, and published."""
