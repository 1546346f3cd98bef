"""Reports as pages for the browser: one file each, that asks nothing of a network."""
