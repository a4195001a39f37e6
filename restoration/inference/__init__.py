"""One picture or a million restored: tiles, engine, color, result file."""
