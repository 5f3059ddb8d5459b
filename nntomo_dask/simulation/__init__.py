"""From a crystal to the tilt series that a microscope would record of it."""
