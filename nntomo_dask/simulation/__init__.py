"""Simulation: from a crystal to the STEM tilt series that a microscope would record of it."""

from nntomo_dask import extras

# All of it needs the atoms of ASE and abTEM; py4DSTEM is needed for one way to the phase only.
extras.check("ase", "abtem", who="simulation")
