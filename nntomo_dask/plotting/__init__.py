"""Figures. This is the only folder that imports Matplotlib."""
