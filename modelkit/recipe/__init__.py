"""A recipe: commands run in order on one model, as one run with one report."""
