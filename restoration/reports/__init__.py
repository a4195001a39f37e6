"""Pages that show a person what happened."""
