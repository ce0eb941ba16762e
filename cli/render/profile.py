"""A profile's stacks as what a reader looks for: where the time went."""

from collections import Counter
from collections.abc import Sequence

from cli.render.output import columns
from cli.render.template import Row

PROFILE_COLUMNS = columns(self="SELF", total="TOTAL", function="FUNCTION")
"""Columns of what `busiest` returns."""

_SHOWN = 30

Stacks = Sequence[tuple[tuple[str, ...], int]]


def busiest(stacks: Stacks, looks: int) -> list[Row]:
    """Returns the functions in which threads were found most, with shares of the time.

    Args:
        stacks: chains of calls, the outermost first, with how often a thread was found there.
        looks: how often the process was looked at.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for frames, samples in stacks:
        own[frames[-1]] += samples
        total.update(dict.fromkeys(frames, samples))
    order = sorted(total, key=lambda name: (-own[name], -total[name], name))
    return [
        {
            "self": f"{100 * own[name] / max(1, looks):.1f}%",
            "total": f"{100 * total[name] / max(1, looks):.1f}%",
            "function": name,
        }
        for name in order[:_SHOWN]
    ]


def collapsed(stacks: Stacks) -> list[str]:
    """Returns one line a stack, `outer;inner COUNT`: what flame graphs are made of."""
    return [f"{';'.join(frames)} {samples}" for frames, samples in stacks]
