"""Science of MOS: models, scales and P.1401 metrics."""
