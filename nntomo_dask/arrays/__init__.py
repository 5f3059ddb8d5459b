"""Volumes and tilt series: labelled lazy arrays, their geometry, their slabs and their recipes.

All higher layers pass such arrays to each other. This layer knows no methods, no phantoms and no files.
"""
