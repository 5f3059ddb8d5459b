"""Tilt series to volume, one algorithm a file."""
