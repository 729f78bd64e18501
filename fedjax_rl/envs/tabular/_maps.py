"""Maps of grid worlds: text, cells, and where the four directions lead."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


# Names of Gymnasium's maps and of the published ones. Rows are separated by "/".
MAPS = {
    "3x3": "S../.#./..G",
    "5x5": "S..../.#.../..#../...../....G",
    "lake-4x4": "S.../.H.H/...H/H..G",
    "lake-8x8": "S......./......../...H..../.....H../...H..../.HH...H./.H..H.H./...H...G",
    "four_rooms": (
        "#############/#.....#.....#/#.....#.....#/#...........#/#S....#.....#/#.....#.....#/##.####.....#/"
        "#.....###.###/#.....#..G..#/#.....#.....#/#...........#/#.....#.....#/#############"
    ),
}
SYMBOLS = {
    "#": "wall",
    ".": "free",
    "S": "start",
    "G": "goal",
    "H": "hole: the end, without reward",
    "C": "cliff: back to the start",
}
# Gymnasium's order: left, down, right, up, as steps in (row, column). Neighbours in the list are perpendicular.
DIRECTIONS = ((0, -1), (1, 0), (0, 1), (-1, 0))
SLIPS = ("sideways", "others", "neighbours", "down")


class Grid(NamedTuple):
    """One or several maps as arrays; the state of a cell is row * columns + column, walls are states nobody is in."""

    free: Any  # f64[S] no wall
    start: Any  # f64[S] law of the first state
    goal: Any  # f64[S] 1 at goals
    hole: Any  # f64[S] 1 at holes
    cliff: Any  # f64[S] 1 at cliffs
    intended: Any  # f64[S, 4, S] where an action leads that succeeds
    slipped: Any  # f64[S, 4, S] where it leads when it fails
    neighbours: Any  # f64[S, S] 1 at the free cells beside a cell; at the cell itself if there are none


def read_map(text: str, slip: str, *, needs_goal: bool = True) -> tuple[Grid, tuple[int, int]]:
    """A map and its size.

    Args:
        text: a name in `MAPS`, or rows of `SYMBOLS` separated by "/" or line ends.
        slip: one of `SLIPS`.
        needs_goal: whether the map must have a goal.

    Raises:
        ValueError: an unknown symbol, rows of different length, no start, no goal, or a goal out of reach.
    """
    rows = [row.strip() for row in MAPS.get(text, text).replace("\n", "/").split("/") if row.strip()]
    shown = repr(text if len(text) < 60 else text[:57] + "...")
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        known = ", ".join(MAPS)
        raise ValueError(f"layout must have rows of the same length, got {shown}; known by name: {known}")
    for i, row in enumerate(rows):
        for j, symbol in enumerate(row):
            if symbol not in SYMBOLS:
                legend = ", ".join(f"{key} {meaning}" for key, meaning in SYMBOLS.items())
                raise ValueError(
                    f"layout: {symbol!r} in row {i}, column {j} of {shown} is no symbol; {legend}; "
                    f"maps known by name: {', '.join(MAPS)}"
                )
    cells = np.array([list(row) for row in rows])
    flat = cells.ravel()
    marks = {symbol: (flat == symbol).astype(np.float64) for symbol in SYMBOLS}
    if needs_goal and not marks["G"].any():
        raise ValueError(f"layout must have a goal G, got {shown}")
    if not marks["S"].any():
        raise ValueError(f"layout must have a start S, got {shown}")
    free = 1 - marks["#"]
    intended, slipped, neighbours = _moves(cells.shape, free, slip)
    start = marks["S"] / marks["S"].sum()
    passable = free - marks["H"] - marks["C"]
    wanted = marks["G"] if needs_goal else marks["."] + marks["G"]
    if not wanted.any():
        raise ValueError(f"layout must have a free cell besides the start, got {shown}")
    _check_reachable(shown, intended * passable[:, None, None], start, wanted)
    return Grid(free, start, marks["G"], marks["H"], marks["C"], intended, slipped, neighbours), cells.shape


def read_maps(layouts: str | Sequence[str], slip: str, *, needs_goal: bool = True) -> tuple[Grid, tuple[int, int]]:
    """Several maps of one size, with a leading axis."""
    texts = [layouts] if isinstance(layouts, str) else list(layouts) if isinstance(layouts, Sequence) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"layout must be a text or a sequence of texts, got {layouts!r}")
    grids, sizes = zip(*(read_map(text, slip, needs_goal=needs_goal) for text in texts), strict=True)
    if len(set(sizes)) > 1:
        raise ValueError(f"layout must have maps of one size, got {', '.join(f'{h}x{w}' for h, w in sizes)}")
    return Grid(*(np.stack(parts) for parts in zip(*grids, strict=True))), sizes[0]


def _moves(size: tuple[int, int], free: np.ndarray, slip: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intended and failed moves f64[S, 4, S], and the neighbours f64[S, S]; a walker stays before a wall or the rim."""
    height, width = size
    states = height * width
    leads = np.tile(np.arange(states)[:, None], (1, 4))  # i[S, 4]
    for state in np.flatnonzero(free):
        row, column = divmod(int(state), width)
        for action, (down, right) in enumerate(DIRECTIONS):
            i, j = row + down, column + right
            if 0 <= i < height and 0 <= j < width and free[i * width + j]:
                leads[state, action] = i * width + j
    eye = np.eye(states)
    intended = eye[leads]
    neighbours = np.minimum(intended.sum(1) * (1 - eye), 1)
    if slip == "sideways":
        slipped = (np.roll(intended, 1, axis=1) + np.roll(intended, -1, axis=1)) / 2
    elif slip == "others":
        slipped = (intended.sum(1, keepdims=True) - intended) / 3
    elif slip == "down":
        slipped = np.repeat(intended[:, 1:2], 4, axis=1)
    else:
        others = neighbours[:, None] * (1 - intended)
        blocked = (leads == np.arange(states)[:, None]) | (others.sum(-1) == 0)
        slipped = np.where(blocked[..., None], intended, others / np.maximum(others.sum(-1, keepdims=True), 1))
    alone = neighbours.sum(1, keepdims=True) == 0
    return intended, slipped, np.where(alone, eye, neighbours)


def _check_reachable(shown: str, intended: np.ndarray, start: np.ndarray, wanted: np.ndarray) -> None:
    """Raises unless every wanted cell can be reached from a start."""
    step, reached = intended.max(1) > 0, start > 0
    for _ in range(len(start)):
        reached = reached | (reached @ step)
    lost = np.flatnonzero((wanted > 0) & ~reached)
    if len(lost):
        raise ValueError(f"layout: cell number {lost[0]} of {shown} cannot be reached from the start")
