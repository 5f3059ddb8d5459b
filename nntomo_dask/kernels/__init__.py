"""The inner loops: plain arrays in, plain arrays out; one formula a file, a NumPy reference beside the fast spelling."""
