"""Devices: CPU, GPU and TPU differences, the mesh, several processes."""
