"""The kinds of learning: each says what an example, a step, a validation and a judgement is."""
