"""Rule sets that imitate a saved model: queries near the data, its own thresholds, fidelity measured apart."""
