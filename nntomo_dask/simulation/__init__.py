"""Simulation: from a crystal to the STEM tilt series that a microscope would record of it."""
