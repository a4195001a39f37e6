"""The seed report's five tables, made again."""
