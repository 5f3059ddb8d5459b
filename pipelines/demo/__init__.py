"""Whole studies as short scripts, to run, copy and edit."""
