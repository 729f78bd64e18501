"""Random mazes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check, check_count, component, static

from ._drawn import DrawnFamily, floating, integer
from ._maps import DIRECTIONS
from ._mdp import TabularMDP, TabularParams


@component
class MazeFamily(DrawnFamily):
    """Every agent walks in a maze of its own; build it with `maze_family`.

    Args:
        env: the environment.
        max_steps: time limit [steps].
        size: n, odd: rows and columns.
    """

    env: TabularMDP = static()
    max_steps: Any
    size: int = static(default=5)

    def draw(self, key: jax.Array, agent: jax.Array) -> TabularParams:
        free = self.walls_down(jax.random.fold_in(key, agent)).reshape(-1)
        size, states = self.size, self.size**2
        cells = np.arange(states)
        goal = states - 1
        leads = []
        for down, right in DIRECTIONS:
            row, column = cells // size + down, cells % size + right
            inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
            beside = np.where(inside, row * size + column, cells)
            passable = free & free[beside] & (cells != goal)
            leads.append(jnp.where(passable, beside, cells))
        leads = jnp.stack(leads, axis=1)
        arrives = (leads == goal) & (cells != goal)[:, None]
        start = jax.nn.one_hot(0, states, dtype=jnp.result_type(float))
        kernel = jax.nn.one_hot(leads, states, dtype=jnp.result_type(float))
        return TabularParams(kernel, floating(arrives), start, integer(self.max_steps))

    def walls_down(self, key: jax.Array) -> jax.Array:
        """One maze, bool[n, n]: where one can walk. Depth first search in random order over every other cell.

        A step goes from the current room to a random neighbouring one that was not visited, or back where none is left;
        after twice as many steps as rooms all are visited.
        """
        rooms = self.size // 2 + 1
        steps = np.array(DIRECTIONS, np.int32)

        def move(carry: tuple[jax.Array, ...], number: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
            here, visited, back, free = carry
            there = here[None] + steps  # i[4, 2]
            inside = jnp.all((there >= 0) & (there < rooms), axis=1)
            safe = jnp.clip(there, 0, rooms - 1)
            fresh = inside & jnp.logical_not(visited[safe[:, 0], safe[:, 1]])
            noise = jax.random.uniform(jax.random.fold_in(key, number), (4,))
            choice = jnp.argmax(jnp.where(fresh, noise, -1))
            goes = jnp.any(fresh)
            target = jnp.where(goes, safe[choice], back[here[0], here[1]])
            between = here + target  # of the cells 2 here and 2 target
            came_from = jnp.where(goes, here, back[target[0], target[1]])
            visited = visited.at[target[0], target[1]].set(True)
            back = back.at[target[0], target[1]].set(came_from)
            free = free.at[between[0], between[1]].set(True).at[2 * target[0], 2 * target[1]].set(True)
            return (target, visited, back, free), None

        origin = jnp.zeros((2,), jnp.int32)
        visited = jnp.zeros((rooms, rooms), bool).at[0, 0].set(True)
        free = jnp.zeros((self.size, self.size), bool).at[0, 0].set(True)
        start = (origin, visited, jnp.zeros((rooms, rooms, 2), jnp.int32), free)
        (_, _, _, free), _ = jax.lax.scan(move, start, jnp.arange(2 * rooms**2))
        last = self.size - 1
        return free.at[last, last - 1].set(True).at[last - 1, last].set(True)


def maze_family(size: int = 5, max_steps_in_episode: int = 100) -> MazeFamily:
    """Deterministic random mazes, one an agent: the layouts differ, the reward does not.

    Rooms are the cells whose row and column are even; depth first search from the upper left one in random order takes
    down the walls between them. The two cells beside the goal, in the lower right corner, are always open: arriving
    there pays 1 and ends everything, so that all agents have the same rewards (eps_r = 0) and some differ altogether in
    where an action leads (eps_P = 1). The actions are left, down, right, up. The published discount is 0.95, with 5
    agents.

    Args:
        size: n, odd: rows and columns, walls included.
        max_steps_in_episode: time limit [steps].

    Raises:
        ValueError: the size is even or less than 3.

    Reference:
        Wang, Yang, Su, "Convergence rates of federated Q-learning across heterogeneous environments",
        arXiv:2409.03897, and its code.
    """
    check_count("size", size, 3)
    check("size", size, lambda v: v % 2 == 1, "must be odd", "every other cell is a room")
    check_count("max_steps_in_episode", max_steps_in_episode)
    return MazeFamily(TabularMDP(size**2, 4, branching=1), max_steps_in_episode, int(size))
