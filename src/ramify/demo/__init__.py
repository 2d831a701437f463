"""The demonstration: a base model, few-shot chain of thought, SFT and rejection sampling, on held-out questions."""
