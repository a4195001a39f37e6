"""The shipped weights: their training and their quality."""
