"""Size, quality, fidelity, latency."""
