"""What a compiled program sends between devices: bytes that each device sends, by kind of collective.

Counted for rings, n devices taking part, each with B bytes to begin with:

    all-gather           (n - 1) B            reduce-scatter   (n - 1) / n B
    all-reduce           2 (n - 1) / n B      all-to-all       (n - 1) / n B
    collective-permute   B                    send             B

`send` is what a device hands to the data centre's network, for other slices. A collective inside a loop counts as often
as the loop runs (planning/hlo.py).
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from m2io_jax.planning.hlo import Computation, Instruction, Program

BETWEEN_SLICES = "send"
SHARES = {
    "all-gather": lambda n: n - 1,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
    BETWEEN_SLICES: lambda n: 1.0,
}


def bytes_sent(program: Program, devices: int) -> dict[str, float]:
    """Bytes that a device sends in one run of the program, by kind.

    Args:
        devices: of one slice.
    """
    sent: dict[str, float] = defaultdict(float)
    for kind, often, members, size in _collectives(program, devices):
        sent[kind] += often * size * SHARES[kind](members)
    return {kind: sent[kind] for kind in SHARES if sent[kind]}


def _collectives(program: Program, devices: int) -> Iterable[tuple[str, float, int, int]]:
    """Of each collective its kind, how often it is done, devices taking part, and bytes that each gives."""
    found: dict[str, tuple[str, float, int, int]] = {}
    for name, often in program.runs().items():
        for inside, instruction in program.instructions(name):
            kind = instruction.opcode.removesuffix("-start")
            if kind not in SHARES:
                continue
            # TPUs write a reduce-scatter so; and a collective that runs beside products once in each of their fusions,
            # in loops too that it outlasts, always with the same channel: it is done as often as it is begun.
            kind = "reduce-scatter" if inside.name.startswith("all-reduce-scatter") else kind
            fused = inside.name != name
            one = f"{kind} {instruction.attribute('channel_id')}" if fused else f"{name} {instruction.name}"
            times = min(often, found[one][1]) if one in found else often
            found[one] = (kind, times, group_size(instruction.attributes, devices), _given(inside, instruction))
    return found.values()


def _given(inside: Computation, instruction: Instruction) -> int:
    """Bytes of what a device gives. What orders instructions (tokens) has none."""
    return sum(inside.instructions[name].bytes for name in instruction.operands)


def group_size(attributes: str, devices: int) -> int:
    """How many devices take part in a collective, by the three ways in which XLA writes its groups."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"('[^']+')=(\d+)", named[1]))
        size = 1
        for axis, part in re.findall(r"('[^']+')(?::\(\d+\)(\d+))?", named[2]):
            size *= int(part or sizes[axis])
        return size
    return devices
