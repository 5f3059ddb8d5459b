"""From pairs of tilt series and volume to a network."""
