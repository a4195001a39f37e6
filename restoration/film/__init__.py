"""Films decoded, cut into shots, aligned and compared."""
