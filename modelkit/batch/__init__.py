"""One command on every model below a folder."""
