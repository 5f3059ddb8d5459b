"""Projection of a volume to a tilt series, and its transpose: the pair that iterative reconstructions use."""
