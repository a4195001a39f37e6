"""How a command is asked and answers: options, flags, one-line errors, whole files."""
