"""Who suggests what is tried next: one strategy a file; this is the list of them."""
