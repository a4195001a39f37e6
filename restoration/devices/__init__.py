"""What is computed on: CPU, GPU and TPU, the mesh, several processes."""
