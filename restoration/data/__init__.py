"""Pairs found, split, stored, sampled and fed as batches."""
