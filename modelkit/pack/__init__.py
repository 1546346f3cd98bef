"""Which weights of a model are packed, and how."""
