"""What is wrong with a paired folder, and moving it aside reversibly."""
