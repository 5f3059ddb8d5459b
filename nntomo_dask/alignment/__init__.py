"""Alignment of measured series: where each projection lies, found step by step and applied once.

`table` is what all of it hands on, the rows of an alignment, composed and edited; `files` and `imod` read and write it,
and `found` keeps what was found. `apply` makes the aligned series from the raw one in one interpolation. `quality`
looks at a series before and after, and `page` tells it.
"""
