"""Restores old photographs and film frames with neural networks, in JAX."""
