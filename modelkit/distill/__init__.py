"""A small student learns what a large teacher says: where it comes from, how it learns, and whether that helped."""
