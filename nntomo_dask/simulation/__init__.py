"""From a crystal to the tilt series that a microscope would record of it."""

from nntomo_dask import extras

# ASE's atoms are in all of it, and abTEM in what is computed of them; py4DSTEM serves one way to the phase alone.
extras.check("ase", "abtem", who="simulation")
