"""Reads compiled programs: what a loop makes anew in every turn."""

import re


_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_CALLED = re.compile(r"(?:calls|body|condition|to_apply|true_computation|false_computation)=%([\w.-]+)")
# These hand a buffer on or write a part of it where it lies.
_IN_PLACE = {"parameter", "get-tuple-element", "bitcast", "dynamic-update-slice", "scatter", "while", "tuple"}


def computations(text):
    """name -> [(is_root, name, type, opcode, rest of the line)]."""
    found, current = {}, None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if match := _COMPUTATION.match(line):
            current = found.setdefault(match[1], [])
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append((bool(match[1]), *match.groups()[1:]))
    return found


def made_anew(text, num_turns, length):
    """Instructions in the loop of `num_turns` turns, and in loops inside it, that make a whole array anew.

    Args:
        text: of a compiled program.
        num_turns: known trip count of the loop; no other loop may have it.
        length: an array is looked at if it has an axis of this length.

    Returns:
        the instructions, and how often such an array is written in part.
    """
    program = computations(text)
    loops = [
        instruction
        for instructions in program.values()
        for instruction in instructions
        if instruction[3] == "while" and f'"known_trip_count":{{"n":"{num_turns}"}}' in instruction[4]
    ]
    assert len(loops) == 1, f"{len(loops)} loops of {num_turns} turns"
    (body,) = re.findall(r"body=%([\w.-]+)", loops[0][4])
    bad, writes, todo, seen = [], 0, [body], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for _, instruction, kind, opcode, rest in program[name]:
            called = _CALLED.findall(rest)
            if opcode in ("while", "call", "conditional"):
                todo += called
            if kind.startswith("(") or not re.search(rf"[\[,]{length}[\],]", kind):
                continue
            if opcode == "fusion":
                root = next(i for i in program[called[0]] if i[0])
                opcode = root[3]
            writes += opcode in ("dynamic-update-slice", "scatter")
            if opcode not in _IN_PLACE and opcode != "call":
                bad.append(f"{instruction} = {kind} {opcode}")
    return bad, writes
