"""Sweeps: what they run, the list of their trials, and the workers that run them."""
