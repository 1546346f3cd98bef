"""Datasets in, calibration and synthetic inputs."""
