"""Networks: pure (init, apply) pairs over x[B, T, F]."""
