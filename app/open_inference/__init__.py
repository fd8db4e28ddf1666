"""The Open Inference Protocol, version 2 over REST: its tensors, its requests and its replies."""
