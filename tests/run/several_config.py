"""The tiny run for several processes: two devices in all; the variant is an algorithm or a rule."""

from tests.run.conftest import tiny_config

ALGORITHMS = {"scaffold": {"optimizer": "sgd"}, "fedper": {}, "fedavg": {}}


def get_config(variant="fedavg"):
    sections = {"perf": {"client_axis": "shard", "devices": 2}}
    if variant in ALGORITHMS:
        sections |= {"fed": {"algorithm": variant}, "client": ALGORITHMS[variant]}
    elif variant == "qoe":
        sections |= {"fed": {"weight": "qoe", "held_out": 40}}
    elif variant == "fltrust":
        sections |= {"server": {"aggregator": "fltrust", "root_rows": 20}}
    else:
        sections |= {"server": {"aggregator": variant, "byzantine": 1}}
    return tiny_config("", **sections)
