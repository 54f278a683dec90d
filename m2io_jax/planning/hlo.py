"""A compiled program as XLA prints it: its computations, and how often each one runs."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEAD = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"\s*(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)")
_OPCODE = re.compile(r"\s*(?P<opcode>[a-z][\w\-]*)\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b(pred|token|[a-z]\d?\w*?)\[([\d,]*)\]")
CONTROL = ("while", "conditional", "call")
_BITS = {"pred": 8, "token": 0}


@dataclass(frozen=True)
class Instruction:
    """One line: `%name = shape opcode(%operands), attributes`."""

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    arguments: str

    @property
    def bytes(self) -> int:
        """Of the result, all of a tuple's parts together."""
        return shape_bytes(self.shape)

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs."""
        several = ",".join(_BRANCHES.findall(self.attributes))
        return _CALLED.findall(self.attributes) + [name.strip(" %") for name in several.split(",") if name.strip()]

    def attribute(self, name: str) -> str | None:
        """What stands behind `name=`, up to the next comma: a computation's name or a number."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found and found[1]


@dataclass
class Computation:
    """Instructions by their names; `root` names what it returns."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""


@dataclass(frozen=True)
class Program:
    """Computations by their names; `entry` names the one that runs first."""

    computations: dict[str, Computation]
    entry: str

    def runs(self) -> dict[str, float]:
        """How often at most each computation runs when the program runs once; those inside instructions are left out.

        A loop runs as often as its counter allows, whatever else may end it; of a condition every branch counts.

        Raises:
            ValueError: a loop whose bounds cannot be read.
        """
        times: dict[str, float] = defaultdict(float)
        pending = [(self.entry, 1.0)]
        while pending:
            name, often = pending.pop()
            times[name] += often
            for instruction in self.computations[name].instructions.values():
                if instruction.opcode in CONTROL:
                    loops = trips(self, self.computations[name], instruction) if instruction.opcode == "while" else 1.0
                    pending += [(called, often * loops) for called in instruction.called]
        return dict(times)

    def instructions(self, computation: str) -> Iterator[tuple[Computation, Instruction]]:
        """Those of a computation and those inside of them (fusions), each with the computation that it stands in."""
        for instruction in self.computations[computation].instructions.values():
            yield self.computations[computation], instruction
            if instruction.opcode not in CONTROL:
                for called in instruction.called:
                    yield from self.instructions(called)


def read_program(text: str) -> Program:
    """Reads what `jax.stages.Compiled.as_text` writes."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head["name"]] = Computation(head["name"])
            entry = head["name"] if head["entry"] else entry
        elif line == "}":  # kernels write lines of their own that begin so
            current = None
        elif current is not None and (found := _LINE.match(line)):
            current.instructions[found["name"]] = _instruction(found["name"], found["rest"])
            current.root = found["name"] if found["root"] else current.root
    return Program(computations, entry)


def shape_bytes(shape: str) -> int:
    """Bytes of an array such as `bf16[8,128]{1,0}`, or of a tuple of them, without padding."""
    return sum(_bits(kind) * math.prod(int(n) for n in sizes.split(",") if n) // 8 for kind, sizes in arrays(shape))


def arrays(shape: str) -> Iterator[tuple[str, str]]:
    """Element type and sizes of each array of a shape."""
    # Layouts hold brackets of their own kind only, so that every `type[sizes]` is an array.
    return iter(_ARRAY.findall(shape))


def _bits(kind: str) -> int:
    digits = re.match(r"[a-z]+(\d+)", kind)
    return _BITS[kind] if kind in _BITS else int(digits[1])


def _instruction(name: str, rest: str) -> Instruction:
    shape, rest = _balanced(rest) if rest.startswith("(") else rest.split(" ", 1)
    opcode = _OPCODE.match(rest)
    arguments, attributes = _balanced(rest[opcode.end() - 1 :])
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(name, opcode["opcode"], shape, operands, attributes, arguments.strip("()"))


def _balanced(text: str) -> tuple[str, str]:
    """What stands in the first pair of parentheses, with them, and what follows."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    raise ValueError(f"parentheses do not close: {text[:80]}")


def trips(program: Program, caller: Computation, loop: Instruction) -> float:
    """How often a loop runs at most: `counter < bound`, from where the counter starts, by what it grows each time."""
    stated = re.search(r'known_trip_count[^\d]*(\d+)', loop.attributes)
    if stated:
        return float(stated[1])
    index, bound = _bound(program, loop)
    start, step = _start(program, caller, loop, index), _growth(program, loop, index)
    return max(0.0, math.ceil((bound - start) / step))


def _bound(program: Program, loop: Instruction) -> tuple[int, int]:
    """Which part of the loop's state counts, and below what the loop goes on."""
    condition = program.computations[loop.attribute("condition")]
    for comparison in condition.instructions.values():
        if comparison.opcode != "compare" or comparison.attribute("direction") != "LT":
            continue
        counter, limit = (condition.instructions[name] for name in comparison.operands)
        if counter.opcode == "get-tuple-element" and limit.opcode == "constant":
            return int(counter.attribute("index")), int(limit.arguments)
    raise ValueError(f"the loop {loop.name} has no bound that can be read")


def _start(program: Program, caller: Computation, loop: Instruction, index: int) -> int:
    """The counter before the loop: a constant, or what an earlier loop left, which ran to its bound."""
    value = caller.instructions[loop.operands[0]]
    if value.opcode == "tuple":
        value = caller.instructions[value.operands[index]]
    while value.opcode in ("copy", "bitcast", "convert", "copy-start", "copy-done"):
        value = caller.instructions[value.operands[0]]
    if value.opcode == "constant":
        return int(value.arguments)
    if value.opcode == "get-tuple-element" and caller.instructions[value.operands[0]].opcode == "while":
        return _bound(program, caller.instructions[value.operands[0]])[1]
    raise ValueError(f"the loop {loop.name} starts from {value.opcode}, which cannot be read")


def _growth(program: Program, loop: Instruction, index: int) -> int:
    body = program.computations[loop.attribute("body")]
    value = body.instructions[body.instructions[body.root].operands[index]]
    while value.opcode in ("copy", "bitcast"):
        value = body.instructions[value.operands[0]]
    added = [body.instructions[name] for name in value.operands]
    constants = [int(each.arguments) for each in added if each.opcode == "constant"]
    if value.opcode != "add" or len(constants) != 1:
        raise ValueError(f"the loop {loop.name} counts by {value.opcode}, which cannot be read")
    return constants[0]
