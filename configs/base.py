"""Defaults of every experiment; each other file overrides a few of these.

A key that is not here is refused before anything compiles. Sections:

    data        what is learned from, and how rows are cleaned and scaled
    clients     how the training rows are shared among clients
    model       the network (``net`` names it; the rest are its own arguments)
    loss        the two tasks and their weights
    fed         rounds, cohorts, and the algorithm (docs/algorithms.md)
    participation  who is there, who does less than asked, and how long devices take
    client      a client's local optimisation
    server      aggregation and the server's optimizer
    attack      malicious clients, and what they do
    privacy     noise and budget of differential privacy (docs/privacy.md)
    compress    how updates are made smaller (docs/compression.md)
    exchange    what travels: nothing, sealed and signed envelopes, or masked sums
    calibration what clients keep back from training, to say how sure a model may be
    perf        speed and memory only (rounding apart: see docs/sharp_edges.md)
    evaluation  how often, and in what batches
    checkpoint  how often, and how many are kept
"""

import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The defaults themselves; they train the simulated dataset."""
    if variant:
        raise ValueError(f"configs/base.py has no variants, but {variant!r} was asked for")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = ml_collections.ConfigDict(
        {
            "name": "simulated_iot/small",
            "dir": "",  # "" is TFDS' own default folder
            "manual_dir": "",  # only needed when the dataset is not prepared yet
            "keep": (),  # leaky columns to keep by name, for comparison
            "drop": (),  # further columns to leave out
            "scale": "quantile",
            "features": 40,  # budget of the mutual-information filter; 0 keeps all that vary
            "max_levels": 32,
            "view": "",  # "shared": the few quantities that several datasets have, benign or attack
            "split": "prepared",  # or "random", "group", "blocked", "leave_out"
            "test_fraction": 0.2,  # of "random", "group" and "blocked"
            "within": "class",  # "blocked" cuts the rows of each "class" or "group", or "all" rows
            "order": "",  # "blocked": column that tells the time; "" is the order of preparation
            "blocks": 10,  # "blocked": blocks that each part is cut into
            "gap": 50,  # "blocked": rows dropped on either side of a border
            "leave_out": (),  # "leave_out": attacks without training rows
            "seed": -1,  # of all that is drawn before training (splits, clients, ...); -1: seed
            "max_rows": 0,  # 0 keeps all; otherwise a seeded sample of the training rows
        }
    )
    c.clients = ml_collections.ConfigDict(
        {"count": 20, "partition": "dirichlet", "alpha": 0.5, "min_size": 32, "per_client": 2}
    )
    c.model = ml_collections.ConfigDict(
        {
            "net": "qoenet", "width": 64, "depth": 2, "heads": 4, "mlp": 128, "dropout": 0.1,
            "dtype": "float32",  # or "bfloat16", for GPU and TPU (docs/performance.md)
        }
    )  # fmt: skip
    c.loss = ml_collections.ConfigDict(
        {
            "class_loss": "cross_entropy",
            "class_weight": "none",
            "label_smoothing": 0.0,
            "focal_gamma": 0.0,
            "mos_loss": "rps",
            "mos_weight": 1.0,
            "weighting": "fixed",
        }
    )
    _federation(c)
    c.perf = ml_collections.ConfigDict(
        {
            "client_axis": "shard",  # or "turn", "chunk", "auto" (docs/performance.md), "strict"
            "chunk": 1,  # clients at once on a device, for "chunk", "shard" and "strict"
            "devices": 2,  # simulated on CPU by "shard"; "auto" takes one per core
            "placement": "copies",  # or "home": each client's rows and state on one device
            "threads": 8,  # strict: of XLA's CPU pool, on which the last bits depend
            "rounds_per_dispatch": 10,  # 0 lets it be measured
            "tune_seconds": 60.0,  # of measurements; their answer is cached
            "state_memory_mb": 4096,  # most memory for the states of all clients
        }
    )
    c.calibration = ml_collections.ConfigDict(
        {
            "share": 0.0,  # of each client's rows, kept back (docs/uncertainty.md); 0: nothing is
            "alpha": 0.1,  # share of sets and intervals that may miss the truth
            "method": "aps",  # or "lac", "aps_whole"
            "per_class": False,  # a threshold for each class, so that each is covered
            "together": 1,  # consecutive rows that are kept back as one, as those of an episode
        }
    )
    c.evaluation = ml_collections.ConfigDict({"every": 10, "batch": 256})
    c.checkpoint = ml_collections.ConfigDict({"every": 10, "keep": 3})
    return c


def _federation(c: ml_collections.ConfigDict) -> None:
    c.fed = ml_collections.ConfigDict(
        {
            "rounds": 100,
            "cohort": 0,  # clients asked each round; 0 asks all
            "algorithm": "fedavg",
            "weight": "examples",  # or "uniform", or "qoe"
            "mu": 0.01,  # fedprox, ditto: pull towards the global parameters
            "alpha": 0.1,  # feddyn
            "option": "estimate",  # scaffold: or "gradient"
            "personal": (),  # patterns of parameters that stay local; () is the algorithm's own
            "head_share": 0.5,  # fedrep: share of the steps that local parameters get
            "held_out": 512,  # weight "qoe": training rows that only the server has
            "mos_share": 0.5,  # weight "qoe": of the MOS error against recall
            "temperature": 0.05,  # weight "qoe": gain at which a weight grows by e
        }
    )
    _participation(c)
    _local_work_and_server(c)
    _exchange(c)


def _participation(c: ml_collections.ConfigDict) -> None:
    c.participation = ml_collections.ConfigDict(
        {
            "sampling": "uniform",  # or "weighted", by rows; "poisson", "cyclic" (docs/privacy.md)
            "trace": "always",  # or "diurnal", "markov", or a .npy file of bool [rounds, clients]
            "availability": 0.5,  # of a trace: mean share of clients that are there
            "period": 24,  # diurnal: rounds of a day
            "stay": 0.8,  # markov: autocorrelation of a client's state
            "dropout": 0.0,  # chance that a client stops half-way
            "stragglers": 0.0,  # chance that a client does part of its steps
            "least_work": 0.2,  # of stragglers
            "mode": "rounds",  # or "buffered": asynchronous, fed.cohort answers make a round
            "concurrency": 0,  # buffered: clients that train at a time; 0 is fed.cohort
            "staleness_power": 0.5,  # buffered: an answer of age t counts (1 + t) ** -power
            "most_stale": 0,  # buffered: older answers are dropped; 0 keeps all
            "devices": "none",  # or "gateways", "mixed", "lpwan": simulated time and bytes
            "deadline": 0.0,  # simulated seconds of a round; clients do the steps that fit
        }
    )


def _local_work_and_server(c: ml_collections.ConfigDict) -> None:
    c.client = ml_collections.ConfigDict(
        {
            "optimizer": "adam",
            "lr": 0.001,
            "schedule": "cosine",
            "batch": 64,
            "epochs": 1,
            "steps": 0,  # when above 0, every client takes this many steps instead of epochs
            "clip": 0.0,  # global-norm clip of a step's gradient; 0 is off
            "weight_decay": 0.0,
        }
    )
    c.server = ml_collections.ConfigDict(
        {
            "optimizer": "sgd",
            "lr": 1.0,
            "aggregator": "weighted_mean",
            "byzantine": 0,  # malicious clients of a round that a robust aggregator expects
            "max_norm": 1e4,  # an update with a larger Euclidean norm is refused
            "root_rows": 0,  # training rows that the server keeps for itself (fltrust)
        }
    )


def _exchange(c: ml_collections.ConfigDict) -> None:
    c.attack = ml_collections.ConfigDict(
        {"name": "none", "fraction": 0.2, "strength": 0.0}  # strength 0: the attack's own default
    )
    c.privacy = ml_collections.ConfigDict(
        {
            "mechanism": "none",  # or "example" (DP-SGD), "user" (DP-FedAvg), "ftrl", "skellam"
            "clip": 0.0,  # largest norm of a row's gradient, or of a client's delta
            "noise": 0.0,  # standard deviation over clip
            "delta": 1e-5,
            "epsilon": 0.0,  # budget, where a run ends; 0 only keeps account
            "microbatch": 0,  # rows whose gradients are in memory at once; 0 is a batch
        }
    )
    c.compress = ml_collections.ConfigDict(
        {
            "method": "none",  # or "int8", "int4", "top_k", "low_rank"
            "fraction": 0.05,  # of the numbers that top_k sends
            "rank": 4,  # of the matrices that low_rank sends
            "feedback": True,  # clients remember what compression took
        }
    )
    c.exchange = ml_collections.ConfigDict(
        {
            "mode": "none",  # or "pqc", "secagg", "secagg_groups" (docs/secagg.md)
            "signer": "pqcrypto",  # or "openssl"
            "kem_provider": "pqcrypto",  # or "openssl"
            "suite": 0x0001,  # its number in docs/wire.md; one for the whole run
            "session": 0,  # rounds that one key agreement lasts; 0: every update signed
            "confidential": False,  # encrypt the model to those in the round
            "unsafe": False,  # allow the classical and the plaintext suite, to measure them
            "workers": 2,
            "key_files": "plain",  # or "encrypted", with the passphrase in QOEJAX_PASSPHRASE
            "registry": "",  # file of who is enrolled (docs/keys.md); "": clients enrol themselves
            "authority": "",  # with a registry: the public key that signed it, in hexadecimal
            "key_dir": "",  # with a registry: folder of server.key and clients/*.key
            "log_key": "",  # file of the key that signs the log; "" is the workdir's own
            "witnesses": "",  # policy file that says who cosigns the log; "" is nobody
            "groups": 5,  # secagg_groups: sums that the server sees of a round
            "clip": 4.0,  # secagg: largest absolute value of a number of an update
            "epoch": 1,  # secagg: rounds that one key agreement serves
            "adversary": "active",  # secagg: or "passive", a server that keeps to the protocol
            "colluding": 0.05,  # secagg: share of clients that may work with the server
            "leaving": 0.1,  # secagg: share of clients that may leave a round half-way
        }
    )


def train_as(c: ml_collections.ConfigDict, algorithm: str) -> ml_collections.ConfigDict:
    """Sets how ``c`` trains: fedavg or fedprox over the wire, or centralised or local without."""
    names = {
        "fedavg": ("fedavg", "pqc"),
        "fedprox": ("fedprox", "pqc"),
        "centralised": ("centralised", "none"),
        "local": ("local_only", "none"),
    }
    if algorithm not in names:
        raise ValueError(f"unknown variant {algorithm!r}: expected one of {', '.join(names)}")
    c.fed.algorithm, c.exchange.mode = names[algorithm]
    return c


def ensemble(c: ml_collections.ConfigDict, rounds: int, batch: int) -> ml_collections.ConfigDict:
    """Makes the hybrid an ensemble, trained on the rows of one place (docs/model.md)."""
    c.model.update(embed="piecewise", members=16, shortcut=True)
    c.loss.class_weight = "sqrt"
    c.client.update(
        optimizer="adamw", lr=0.001, weight_decay=0.01, clip=1.0, schedule="warmup_cosine",
        batch=batch,
    )  # fmt: skip
    c.fed.rounds = rounds
    return c


def fine_classes(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """What ``ensemble`` needs beside where classes are many and rows few (docs/model.md)."""
    c.model.update(hidden=256, dropout=0.0)
    c.client.update(lr=0.005, weight_decay=0.3)
    return c
