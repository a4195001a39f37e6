"""Experiments: each module is one command that writes its own results."""
