"""Post-quantum exchange of updates: leaves to bytes and back; never sees jax."""
