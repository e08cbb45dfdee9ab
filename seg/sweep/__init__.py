"""Sweeps: what they run, the ledger of their trials, and the workers that work it off."""
