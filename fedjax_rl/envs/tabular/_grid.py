"""Grid worlds: walls, slippery floors, goals and layouts by agent."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import check_choice, check_count, check_range, component, is_concrete, static

from ._drawn import DrawnFamily, floating, integer
from ._maps import SLIPS, Grid, read_maps
from ._mdp import TabularMDP, TabularParams, branching_of


@component
class GridFamily(DrawnFamily):
    """Walkers on grids; build it with `grid_world_family`, `frozen_lake_family` or `windy_cliff_family`.

    Args:
        env: the environment.
        grid: the maps, leaves [K, ...]; agent c has map c mod K.
        success: (low, high) between which an agent's probability to go where it wants is drawn.
        eps_p: weight of an agent's own kernel on neighbouring cells.
        rewards: of a goal, of a step, of a cliff.
        max_steps: time limit [steps].
        at_goal: "absorb", "restart" or "stay".
        random_goal: whether every agent has a goal of its own, in place of the map's.
    """

    env: TabularMDP = static()
    grid: Grid
    success: tuple[Any, Any]
    eps_p: Any
    rewards: tuple[Any, Any, Any]
    max_steps: Any
    at_goal: str = static(default="absorb")
    random_goal: bool = static(default=False)

    def draw(self, key: jax.Array, agent: jax.Array) -> TabularParams:
        k_success, k_goal, k_kernel = jax.random.split(jax.random.fold_in(key, agent), 3)
        grid = Grid(*(floating(x)[agent % x.shape[0]] for x in self.grid))
        dtype = grid.start.dtype
        low, high = (floating(x) for x in self.success)
        success = low + (high - low) * jax.random.uniform(k_success, (), dtype)
        kernel = success * grid.intended + (1 - success) * grid.slipped
        eps = floating(self.eps_p)
        kernel = (1 - eps) * kernel + eps * self._own_kernel(k_kernel, grid)
        goal = self._own_goal(k_goal, grid) if self.random_goal else grid.goal
        kernel, reward = self._with_ends(grid, goal, kernel)
        return TabularParams(kernel, reward, grid.start, integer(self.max_steps))

    def _own_kernel(self, key: jax.Array, grid: Grid) -> jax.Array:
        """Uniform weights on the neighbours of a cell, normalised: f[S, A, S], no action better than another."""
        shape = grid.intended.shape
        weight = jnp.maximum(jax.random.uniform(key, shape, grid.start.dtype), jnp.finfo(grid.start.dtype).tiny)
        weight = weight * grid.neighbours[:, None]
        return weight / jnp.sum(weight, axis=-1, keepdims=True)

    def _own_goal(self, key: jax.Array, grid: Grid) -> jax.Array:
        """A free cell that is neither start nor hole nor cliff, uniformly: f[S] one-hot."""
        allowed = grid.free * (grid.start == 0) * (grid.hole == 0) * (grid.cliff == 0)
        place = jnp.argmax(jnp.where(allowed > 0, jax.random.uniform(key, allowed.shape, allowed.dtype), -1))
        return jax.nn.one_hot(place, allowed.shape[0], dtype=allowed.dtype)

    def _with_ends(self, grid: Grid, goal: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Kernel and expected rewards with what goals, holes and cliffs do."""
        r_goal, r_step, r_cliff = (floating(x) for x in self.rewards)
        restart = grid.cliff + goal * (self.at_goal == "restart")
        absorb = grid.hole + goal * (self.at_goal == "absorb")
        back = jnp.broadcast_to(grid.start, kernel.shape)
        kernel = jnp.where(restart[:, None, None] > 0, back, kernel)
        kernel = jnp.where(absorb[:, None, None] > 0, jnp.eye(kernel.shape[0], dtype=kernel.dtype)[:, None], kernel)
        if self.at_goal == "absorb":
            reward = r_step + r_goal * jnp.einsum("sat,t->sa", kernel, goal)
            reward = jnp.where(grid.cliff[:, None] > 0, r_cliff, reward)
        else:
            by_cell = jnp.where(goal > 0, r_goal, jnp.where(grid.cliff > 0, r_cliff, r_step))
            reward = jnp.broadcast_to(by_cell[:, None], kernel.shape[:2])
        return kernel, jnp.where(absorb[:, None] > 0, 0, reward)


def grid_world_family(
    layout: str | Sequence[str] = "four_rooms",
    *,
    success: Any = 2 / 3,
    slip: str = "others",
    goal: str = "map",
    at_goal: str = "absorb",
    eps_p: Any = 0.0,
    step_reward: Any = 0.0,
    max_steps_in_episode: int = 100,
) -> GridFamily:
    """Walkers on a grid that agents may have to themselves: its walls, its goal, how slippery it is.

        P_c = (1 - eps_P) (p_c P_wanted + (1 - p_c) P_slipped) + eps_P Q_c

    The actions are left, down, right, up; before a wall or the rim one stays. The state of a cell is its row times the
    number of columns plus its column, counted from the upper left; walls are states that nobody enters, so that agents
    of different layouts share the space. Q_c has uniform weights on the neighbouring cells, drawn by agent.

    A layout is a text with rows separated by "/": # wall, . free, S start, G goal, H hole (the end, without reward),
    C cliff (back to the start). Known by name: "four_rooms" (with `goal="random"`: warehouses with shelves in other
    places), "3x3", "5x5", "lake-4x4", "lake-8x8".

    Args:
        layout: one, or several of one size, which agents take in turn.
        success: p_c, the probability to go where one wants, in [0, 1]; (low, high): uniform, drawn by agent.
        slip: where one goes otherwise: "others": in one of the three other directions; "sideways": in one of the two
            perpendicular ones; "neighbours": to one of the other free neighbouring cells, while whoever is blocked
            stays for sure; "down": down, by wind.
        goal: "map": where the layout has it; "random": in a free cell drawn by agent, and only there.
        at_goal: "absorb": arriving pays 1 and ends everything; "restart": acting in the goal pays 1 and leads to the
            start; "stay": acting there pays 1 and is a move like any other.
        eps_p: weight of Q_c, in [0, 1].
        step_reward: paid besides for every step outside of goals and holes, to make haste worth it.
        max_steps_in_episode: time limit [steps].

    Raises:
        ValueError: an unknown symbol or name, maps of different sizes, a goal out of reach, a number out of its range.

    Example:
        >>> family = grid_world_family("four_rooms", goal="random")
        >>> family = grid_world_family(("S.G/.#./...", "S.G/..#/..."), success=(0.6, 1.0))

    Reference:
        Four rooms: Sutton, Precup, Singh, "Between MDPs and semi-MDPs", 1999 (success 2/3, slip "others"). "3x3" with
        success 0.8, slip "neighbours", at_goal "stay" and eps_P: Labbi et al., "Federated UCBVI", AISTATS 2025, and its
        code, where the wall is no state.
    """
    check_choice("goal", goal, ("map", "random"))
    check_choice("at_goal", at_goal, ("absorb", "restart", "stay"))
    check_choice("slip", slip, SLIPS)
    check_range("eps_p", eps_p, 0.0, 1.0)
    check_range("step_reward", step_reward)
    grid, size = read_maps(layout, slip, needs_goal=goal == "map")
    return _grid_family(
        grid, size, _probabilities("success", success), max_steps_in_episode,
        rewards=(1.0, step_reward, step_reward), eps_p=eps_p, at_goal=at_goal, random_goal=goal == "random",
    )  # fmt: skip


def frozen_lake_family(
    map_name: str = "4x4", success_rate: Any = 1 / 3, max_steps_in_episode: int | None = None
) -> GridFamily:
    """Gymnasium's FrozenLake, every agent's ice as slippery as it is.

    An action leads where it points with probability p_c and else, half and half, in one of the two perpendicular
    directions. Arriving at the goal pays 1; goal and holes end everything, by absorbing. Solved: a mean return of 0.70
    on 4x4 and 0.85 on 8x8 (the optimum at p = 1/3 is 0.74 within 100 steps and 0.91 within 200).

    Args:
        map_name: "4x4" or "8x8".
        success_rate: p_c, or (low, high): uniform, drawn by agent.
        max_steps_in_episode: time limit [steps]; None: Gymnasium's, 100 on 4x4 and 200 on 8x8.

    Raises:
        ValueError: an unknown map, or a number out of its range.

    Reference: Gymnasium 1.3 `FrozenLake-v1`, `FrozenLake8x8-v1`.
    """
    check_choice("map_name", map_name, ("4x4", "8x8"))
    limit = {"4x4": 100, "8x8": 200}[map_name] if max_steps_in_episode is None else max_steps_in_episode
    grid, size = read_maps(f"lake-{map_name}", "sideways")
    return _grid_family(grid, size, _probabilities("success_rate", success_rate), limit)


def windy_cliff_family(
    height: int = 4, width: int = 4, wind: Any = (0.0, 1.0), max_steps_in_episode: int = 100
) -> GridFamily:
    """A walk along a cliff, in every agent's own wind.

    The start is the lower left corner, the goal the lower right one, the cells between are the cliff. An action other
    than down leads where it points with probability 1 - theta_c / 3 and down otherwise. Acting costs 1 in free cells
    and 100 in the cliff, pays 100 in the goal, and leads from both back to the start. The published discount is 0.95,
    with 5 agents and, for testing, 10 winds that divide [0, 1] evenly.

    Args:
        height: rows, at least 2.
        width: columns, at least 3.
        wind: theta_c in [0, 3], or (low, high): uniform, drawn by agent.
        max_steps_in_episode: time limit [steps].

    Raises:
        ValueError: a value is out of its range.

    Reference:
        Jin et al., "Federated reinforcement learning with environment heterogeneity", AISTATS 2022, and its code, which
        counts rows from below and takes its actions in the order up, down, left, right.
    """
    check_count("height", height, 2)
    check_count("width", width, 3)
    low, high = _pair("wind", wind, 0.0, 3.0)
    text = "/".join(["." * width] * (height - 1) + ["S" + "C" * (width - 2) + "G"])
    grid, size = read_maps(text, "down")
    return _grid_family(
        grid, size, (1 - high / 3, 1 - low / 3), max_steps_in_episode, rewards=(100.0, -1.0, -100.0), at_goal="restart"
    )  # fmt: skip


def _grid_family(
    grid: Grid, size: tuple[int, int], success: tuple[Any, Any], max_steps: int, *,
    rewards: tuple[Any, Any, Any] = (1.0, 0.0, 0.0), eps_p: Any = 0.0, at_goal: str = "absorb",
    random_goal: bool = False,
) -> GridFamily:  # fmt: skip
    """The family, once everything is read."""
    check_count("max_steps_in_episode", max_steps)
    reach = (grid.intended + grid.slipped + grid.neighbours[:, :, None]).reshape(-1, size[0] * size[1])
    env = TabularMDP(size[0] * size[1], 4, branching_of(np.concatenate([reach, grid.start])))
    return GridFamily(env, grid, success, eps_p, rewards, max_steps, at_goal, random_goal)


def _probabilities(name: str, given: Any) -> tuple[Any, Any]:
    """A probability, or the ends of an interval of them."""
    return _pair(name, given, 0.0, 1.0)


def _pair(name: str, given: Any, least: float, most: float) -> tuple[Any, Any]:
    """A number, or (low, high), as a pair of numbers within bounds."""
    pair = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(pair) != 2:
        raise ValueError(f"{name} must be a number or (low, high), got {given!r}")
    for end in pair:
        check_range(name, end, least, most)
    if is_concrete(pair) and pair[0] > pair[1]:
        raise ValueError(f"{name} must have low <= high, got {given!r}")
    return pair
