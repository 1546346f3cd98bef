"""Fewer numbers: `weights` sets single ones to zero, `channels` takes whole channels out; the rest is shared."""
