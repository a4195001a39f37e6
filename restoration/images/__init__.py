"""Image files, from plain frames to archive-grade pictures with their metadata."""
