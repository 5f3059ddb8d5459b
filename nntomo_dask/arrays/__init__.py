"""What volumes and tilt series are: labelled lazy arrays, their geometry, their slabs and their recipes.

All rooms above hand such arrays to each other. Nothing here knows a method, a phantom or a file.
"""
