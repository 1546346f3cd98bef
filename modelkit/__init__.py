"""modelkit: make saved model files smaller and faster, and prove it with measurements."""
