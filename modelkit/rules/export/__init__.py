"""Rule sets in the languages of others: one file for each, and `modelkit.rules.export.targets` lists them."""
