"""Alignment of measured series: where each projection lies, found step by step and applied once."""
