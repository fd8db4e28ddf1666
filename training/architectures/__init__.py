"""Networks: uint8 never reaches them, normalised float does; they return logits."""
