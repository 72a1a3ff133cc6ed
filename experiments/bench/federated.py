"""How clients should train, judged on training episodes that no client has. One JSON line each.

    python -m experiments.bench.federated --data_dir=runs/data
    python -m experiments.bench.federated --data_dir=runs/data --partition="Dirichlet 0.1" \
        --algorithms=shared_moments --change='{"client.lr": 0.002}' \
        --change='{"loss.mos_loss": "rps"}'

Of every site's episodes of the training split of the simulated rows each fifth is set aside, before
rows are shared among clients; macro-F1 is of these. Each line is one way of training of the claim's
study (``run.studies.federated``), some keys of its config changed.
"""

import itertools
import json
import pathlib
import time

from absl import flags

from experiments import cli
from experiments.bench import common

_DATA = flags.DEFINE_string("data_dir", None, "Where prepared datasets live.", required=True)
_PARTITION = flags.DEFINE_string("partition", "Dirichlet 0.3", "A name of PARTITIONS.")
_ALGORITHMS = flags.DEFINE_list("algorithms", ["fedavg", "shared_moments"], "Names.")
_CHANGE = flags.DEFINE_multi_string("change", ["{}"], 'JSON: {"section.key": value, ...}.')
_ROUNDS = flags.DEFINE_integer("rounds", 0, "Rounds; 0: as many as the study has.")

EACH = 5
"""One of so many episodes is set aside."""


def main() -> None:
    """Prints one line for each algorithm and each change."""
    import numpy as np

    from configs import quickstart
    from qoejax.run import build, study
    from qoejax.run.studies import federated, fits

    configs = {fits.SIMULATED: quickstart.get_config("centralised")}
    folder = pathlib.Path()  # nothing is kept
    context = study.Context(_DATA.value, folder, 1, 1.0, configs)
    for algorithm, text in itertools.product(_ALGORITHMS.value, _CHANGE.value):
        c, changed = federated.settings(context, _PARTITION.value, algorithm), json.loads(text)
        c.update_from_flattened_dict(changed)
        c.fed.rounds = _ROUNDS.value or c.fed.rounds
        build.check(c)
        data = federated.set_aside(build.data(c), EACH)
        start = time.perf_counter()
        models = federated.trained(c, data)
        label, classes = data.test.label, len(data.spec.label_names)
        whole = np.ones((len(models), len(label)))
        f1 = federated.scores(models, label, whole, classes).f1
        common.emit(
            {
                "bench": "federated", "partition": _PARTITION.value, "algorithm": algorithm,
                "change": changed, "rounds": c.fed.rounds, "examples": len(label),
                "macro_f1": f1, "seconds": time.perf_counter() - start,
            }
        )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
