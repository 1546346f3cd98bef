"""The model in memory: formats in and out, normalising, facts."""
