"""Rule sets learned from labelled rows: short lists, additive votes and trees, chosen by cross-validation."""
