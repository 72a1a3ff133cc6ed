"""TFDS dataset edge_iiotset."""
