"""Records: TFDS builders, splits, preprocessing, partitions and cohorts.

Importing this package registers the builders with TFDS.
"""

from qoejax.data import builders as builders
