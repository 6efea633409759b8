"""Plots of quality against size."""
