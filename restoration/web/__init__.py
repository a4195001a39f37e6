"""A page in the browser for people without a terminal, served to this machine."""
