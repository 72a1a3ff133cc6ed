"""Federated learning on the device: pure rounds; never sees bytes."""
