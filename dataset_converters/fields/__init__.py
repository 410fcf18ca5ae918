"""How the fields of single sources become columns."""
