"""The inner loops: plain arrays in and out; one formula a file, a NumPy reference beside the fast spelling."""
