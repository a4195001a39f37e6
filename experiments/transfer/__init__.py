"""What networks trained for something else bring."""
