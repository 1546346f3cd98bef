"""The families of models that are tried: one file each, with its space, its first guesses, and how it is fitted."""
