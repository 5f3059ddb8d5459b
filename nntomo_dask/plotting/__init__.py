"""Figures; the only room that imports Matplotlib."""
