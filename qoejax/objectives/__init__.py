"""Losses and metrics; sums and counts, made ratios at the end."""
