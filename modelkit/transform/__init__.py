"""One model from load to report: the steps that all transforming commands share."""
