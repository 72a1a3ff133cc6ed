"""Who holds which rows: partitions of a training set among clients. NumPy only.

Every function takes a label (or, for ``natural``, a group) for each row and gives one sorted array
of row numbers a client. Each row goes to exactly one client, each client gets ``min_size`` rows or
more, and equal arguments give equal partitions. All take the same options and leave alone those
that do not concern them, so that ``PARTITIONS`` is the whole choice.
"""

import heapq
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Int64, Integer

from qoejax.data.errors import DataError

Parts = list[Int64[np.ndarray, " _"]]


def iid(
    label: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_size: int = 1,
    per_client: int = 2,
) -> Parts:
    """Shuffled rows in equal shares; sizes differ by at most one."""
    del alpha, per_client
    _enough(len(label), clients, min_size)
    owner = np.empty(len(label), np.int64)
    owner[np.random.default_rng(seed).permutation(len(label))] = np.arange(len(label)) % clients
    return _lists(owner, clients)


def dirichlet(
    label: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_size: int = 1,
    per_client: int = 2,
) -> Parts:
    """Each class is shared out in proportions drawn from a symmetric Dirichlet(alpha).

    Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for federated
    visual classification", 2019. Small alpha: few classes a client, and unequal sizes. A client
    short of ``min_size`` is filled up with random rows of the largest clients, which changes little
    and, other than drawing again, always ends.
    """
    del per_client
    return _dirichlet(label, clients, seed, alpha, min_size, balanced=False)


def dirichlet_balanced(
    label: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_size: int = 1,
    per_client: int = 2,
) -> Parts:
    """As ``dirichlet``, but a client that holds its even share of rows gets no further class."""
    del per_client
    return _dirichlet(label, clients, seed, alpha, min_size, balanced=True)


def shards(
    label: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_size: int = 1,
    per_client: int = 2,
) -> Parts:
    """Rows sorted by label, cut into equal shards, ``per_client`` random shards to each client.

    McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
    AISTATS 2017: with few shards a client sees few classes.
    """
    del alpha
    if per_client < 1:
        raise DataError(f"shards per client is {per_client}; expected at least 1.")
    _enough(len(label), clients, max(min_size, per_client))
    rng = np.random.default_rng(seed)
    order, _ = _by_class(label, rng)
    total = clients * per_client
    edges = np.arange(total + 1) * len(label) // total
    owner = np.empty(len(label), np.int64)
    owner[order] = np.repeat(rng.permutation(total) % clients, np.diff(edges))
    return _lists(_filled(owner, clients, min_size, rng), clients)


def quantity(
    label: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_size: int = 1,
    per_client: int = 2,
) -> Parts:
    """Shuffled rows in unequal shares: sizes drawn from a symmetric Dirichlet(alpha)."""
    del per_client
    _positive(alpha)
    rng = np.random.default_rng(seed)
    return _by_size(len(label), rng.dirichlet(np.full(clients, alpha)), min_size, rng)


def power_law(
    label: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_size: int = 1,
    per_client: int = 2,
) -> Parts:
    """Shuffled rows in unequal shares: the r-th largest client's size goes as r**-alpha.

    Which client is large depends on the seed.
    """
    del per_client
    _positive(alpha)
    rng = np.random.default_rng(seed)
    share = (1.0 + rng.permutation(clients)) ** -float(alpha)
    return _by_size(len(label), share / share.sum(), min_size, rng)


def natural(
    group: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    *,
    alpha: float = 0.5,
    min_size: int = 1,
    per_client: int = 2,
) -> Parts:
    """Groups stay whole: a client is one group, or several where there are more than clients.

    With as many clients as groups, or ``clients`` 0, client i is the i-th group in order. Otherwise
    groups go one by one, largest first, to the client that holds least. The seed plays no part.

    Raises:
      DataError: rows without a group, fewer groups than clients, or a client below ``min_size``.
    """
    del alpha, per_client, seed
    none = int(np.count_nonzero(group < 0))
    if none or not len(group):
        raise DataError(
            f"{none} of {len(group)} rows have no natural group; expected one for each row, from a "
            "dataset that has them."
        )
    names, code, sizes = np.unique(group, return_inverse=True, return_counts=True)
    clients = clients or len(names)
    if clients > len(names):
        raise DataError(
            f"the rows have {len(names)} natural groups; expected at least {clients}, one a client."
        )
    holder = np.arange(len(names))
    if clients < len(names):
        heap = [(0, client) for client in range(clients)]
        for g in np.argsort(-sizes, kind="stable"):
            held, holder[g] = heap[0]
            heapq.heapreplace(heap, (held + int(sizes[g]), int(holder[g])))
    parts = _lists(holder[code], clients)
    for client, part in enumerate(parts):
        if len(part) < min_size:
            mine = ", ".join(map(str, names[holder == client]))
            raise DataError(
                f"client {client} (group {mine}) has {len(part)} rows; expected at least "
                f"{min_size}."
            )
    return parts


PARTITIONS: dict[str, Callable[..., Parts]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "dirichlet_balanced": dirichlet_balanced,
    "shards": shards,
    "quantity": quantity,
    "power_law": power_law,
    "natural": natural,
}


def summary(
    parts: Sequence[Integer[np.ndarray, " _"]], label: Int[np.ndarray, " N"], classes: int
) -> Int64[np.ndarray, "K C"]:
    """Rows of each class that each client holds; rows with label -1 are not counted."""
    counts = [np.bincount(label[part] + 1, minlength=classes + 1)[1:] for part in parts]
    return np.stack(counts).astype(np.int64)


def _dirichlet(
    label: Int[np.ndarray, " N"],
    clients: int,
    seed: int,
    alpha: float,
    min_size: int,
    *,
    balanced: bool,
) -> Parts:
    _positive(alpha)
    _enough(len(label), clients, min_size)
    rng = np.random.default_rng(seed)
    order, counts = _by_class(label, rng)
    owner = np.empty(len(label), np.int64)
    sizes = np.zeros(clients, np.int64)
    start = 0
    for count in counts[counts > 0]:
        share = rng.dirichlet(np.full(clients, alpha))
        if balanced:
            room = sizes * clients < len(label)
            share = share * room if (share * room).sum() > 0 else room.astype(float)
        mine = _apportion(share, int(count))
        owner[order[start : start + count]] = np.repeat(np.arange(clients), mine)
        sizes += mine
        start += count
    return _lists(_filled(owner, clients, min_size, rng), clients)


def _by_size(
    rows: int, share: Float[np.ndarray, " K"], min_size: int, rng: np.random.Generator
) -> Parts:
    """Shuffled rows: ``min_size`` to each client, the others in the given shares."""
    clients = len(share)
    _enough(rows, clients, min_size)
    sizes = min_size + _apportion(share, rows - clients * min_size)
    owner = np.empty(rows, np.int64)
    owner[rng.permutation(rows)] = np.repeat(np.arange(clients), sizes)
    return _lists(owner, clients)


def _apportion(share: Float[np.ndarray, " K"], total: int) -> Int64[np.ndarray, " K"]:
    """Whole numbers in proportion to ``share`` with sum ``total``: rounded running sums."""
    running = np.cumsum(share)
    edges = np.rint(running / running[-1] * total).astype(np.int64)
    return np.diff(edges, prepend=0)


def _by_class(
    label: Int[np.ndarray, " N"], rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " C"]]:
    """Row numbers sorted by label, shuffled within a label; rows of each label."""
    code = label - label.min()
    if code.max() > 65535:
        code = np.unique(code, return_inverse=True)[1]
    shuffled = rng.permutation(len(label))
    # NumPy's stable sort of 16-bit numbers is a radix sort: linear time.
    order = np.argsort(code.astype(np.uint16)[shuffled], kind="stable")
    return shuffled[order], np.bincount(code)


def _filled(
    owner: Int64[np.ndarray, " N"], clients: int, min_size: int, rng: np.random.Generator
) -> Int64[np.ndarray, " N"]:
    """The same, with rows moved at random from the largest clients to those below ``min_size``."""
    sizes = np.bincount(owner, minlength=clients)
    missing = np.maximum(min_size - sizes, 0)
    need = int(missing.sum())
    if not need:
        return owner
    low, high = min_size, int(sizes.max())  # the level to which the largest are cut down
    while low < high:
        level = (low + high + 1) // 2
        if np.maximum(sizes - level, 0).sum() < need:
            high = level - 1
        else:
            low = level
    give = np.maximum(sizes - low, 0)
    give[np.flatnonzero(give)[: int(give.sum()) - need]] -= 1
    order, _ = _by_class(owner, rng)
    starts = np.cumsum(sizes) - sizes
    moved = np.concatenate([order[s : s + g] for s, g in zip(starts, give, strict=True)])
    owner[rng.permutation(moved)] = np.repeat(np.arange(clients), missing)
    return owner


def _lists(owner: Int64[np.ndarray, " N"], clients: int) -> Parts:
    """Sorted row numbers of each client."""
    small = owner.astype(np.uint16) if clients <= 65536 else owner
    order = np.argsort(small, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner, minlength=clients))[:-1])


def _enough(rows: int, clients: int, min_size: int) -> None:
    if clients < 1 or min_size < 1:
        raise DataError(
            f"{clients} clients of at least {min_size} rows were asked for; expected 1 or more of "
            "both."
        )
    if rows < clients * min_size:
        raise DataError(
            f"{rows} rows cannot give {clients} clients {min_size} rows each (client "
            f"{rows // min_size} would fall short); expected at least {clients * min_size} rows."
        )


def _positive(alpha: float) -> None:
    if not alpha > 0:
        raise DataError(f"alpha is {alpha}; expected more than 0.")
