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
    for name, often in program.runs().items():
        for kind, members, size in _collectives(program, name, devices):
            sent[kind] += often * size * SHARES[kind](members)
    return {kind: sent[kind] for kind in SHARES if sent[kind]}


def _collectives(program: Program, computation: str, devices: int) -> list[tuple[str, int, int]]:
    """Kind, devices taking part and bytes of each collective that one run of a computation does."""
    found: dict[str, tuple[str, int, int]] = {}
    for inside, instruction in program.instructions(computation):
        kind = instruction.opcode.removesuffix("-start")
        if kind in SHARES:
            fused = inside.name != computation
            # TPUs write a reduce-scatter so; and a collective that runs beside products once in each of their fusions,
            # always with the same channel.
            kind = "reduce-scatter" if inside.name.startswith("all-reduce-scatter") else kind
            name = f"{kind} {instruction.attribute('channel_id')}" if fused else instruction.name
            found[name] = (kind, group_size(instruction.attributes, devices), _given(inside, instruction))
    return list(found.values())


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
