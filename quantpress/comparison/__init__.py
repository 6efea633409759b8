"""The comparison: all published formats of one model, side by side."""
