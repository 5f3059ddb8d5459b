"""Networks as data: what a file holds and what reconstruction needs; training is another room."""
