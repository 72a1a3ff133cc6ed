"""The tables of docs/wire-costs.md: ``qoejax.wire.cost`` over the links of ``fed.devices``."""

from qoejax.fed import devices
from qoejax.wire import cost

SIZES = (10_000, 100_000, 458_000)
"""Bytes of an update: a small net, the 100 kB of the other benchmarks, the default net."""
MEMBERS, DEGREE = 100, 20


def rounds(size: int) -> dict[str, cost.Work]:
    """A client's round of each kind with an update, and a model, of ``size`` bytes."""
    words = size // 4 + 1
    shape = {"members": MEMBERS, "degree": DEGREE}
    return {
        "signed update": cost.update(size, size),
        "in a session": cost.in_session(size, size),
        "masked, first": cost.masked(words, size, fresh=True, **shape),
        "masked, later": cost.masked(words, size, fresh=False, **shape),
    }


def link_seconds(up: float, down: float, link: devices.Link) -> float:
    """Seconds on a link, duty cycle and latency included: ``devices.overhead``'s formula."""
    return 2 * link.latency + 8 * (up / link.up + down / link.down) / link.duty


def tables() -> str:
    """Markdown: seconds of cryptography by device; bytes and seconds by link; sources."""
    names, links = list(cost.SPEEDS), list(devices.LINKS)
    heads = " | ".join(f"{name}, s" for name in names)
    lines = [
        f"| update | round | {heads} | bytes up | bytes down |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for size in SIZES:
        for kind, work in rounds(size).items():
            spent = (f"{cost.seconds(work, cost.SPEEDS[name]):.2g}" for name in names)
            lines.append(
                f"| {size // 1000} kB | {kind} | {' | '.join(spent)} | {work.up:,.0f} | "
                f"{work.down:,.0f} |"
            )
    lines += [
        "",
        f"| update | round | {' | '.join(f'{link}, s' for link in links)} |",
        "|---|---|" + "---|" * len(links),
    ]
    for size in SIZES:
        plain = cost.Work(up=size, down=size)
        for kind, work in ({"nothing but the update": plain} | rounds(size)).items():
            spent = (link_seconds(work.up, work.down, devices.LINKS[name]) for name in links)
            cells = " | ".join(f"{each:.2g}" if each < 10 else f"{each:,.0f}" for each in spent)
            lines.append(f"| {size // 1000} kB | {kind} | {cells} |")
    lines.append("")
    lines += [f"- {name}: {speed.source}" for name, speed in cost.SPEEDS.items()]
    lines += [f"- {name}: {link.source}" for name, link in devices.LINKS.items()]
    return "\n".join(lines)
