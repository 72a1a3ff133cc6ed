"""The tiny run for several processes: two devices in all, each with its own clients.

The variant is an algorithm, a rule, or another way to weigh clients or to place rows.
"""

from tests.run.conftest import tiny_config

ALGORITHMS = {"scaffold": {"optimizer": "sgd"}, "fedper": {}, "fedavg": {}}


def get_config(variant="fedavg"):
    sections = {"perf": {"client_axis": "shard", "devices": 2, "placement": "home"}}
    if variant == "copies":
        sections["perf"]["placement"] = "copies"
    elif variant in ALGORITHMS:
        sections |= {"fed": {"algorithm": variant}, "client": ALGORITHMS[variant]}
    elif variant == "qoe":
        sections |= {"fed": {"weight": "qoe", "held_out": 40}}
    elif variant == "fltrust":
        sections |= {"server": {"aggregator": "fltrust", "root_rows": 20}}
    else:
        sections |= {"server": {"aggregator": variant, "byzantine": 1}}
    return tiny_config("", **sections)
