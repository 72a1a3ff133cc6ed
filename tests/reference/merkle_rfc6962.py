"""RFC 6962, section 2.1, as the text defines it: recursion over lists of entries, nothing kept."""

import hashlib


def mth(d):
    if not d:
        return hashlib.sha256().digest()
    if len(d) == 1:
        return hashlib.sha256(b"\x00" + d[0]).digest()
    k = split(len(d))
    return hashlib.sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def split(n):
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m, d):
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m, d):
    return subproof(m, d, True)


def subproof(m, d, b):
    n = len(d)
    if m == n:
        return [] if b else [mth(d)]
    k = split(n)
    if m <= k:
        return [*subproof(m, d[:k], b), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def root_from_path(leaf, m, n, hashes):
    """The root that an audit path leads to, by the same recursion backwards."""
    if n == 1:
        return leaf if not hashes else None
    if not hashes:
        return None
    k = split(n)
    *rest, last = hashes
    if m < k:
        left, right = root_from_path(leaf, m, k, rest), last
    else:
        left, right = last, root_from_path(leaf, m - k, n - k, rest)
    return (
        None if left is None or right is None else hashlib.sha256(b"\x01" + left + right).digest()
    )
