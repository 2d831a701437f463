"""Prefix trees: grow them from token sequences, pack them into one row, attend on them."""
