"""Bring your own fleet: agents whose physics is a table."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.core import EnvFamily, check_range, component, static

from ._cartpole import CartPole
from ._environment import Environment, Params
from ._gymnax import gymnax_environment
from ._gymnax_family import dead_parameters
from ._physics import Rule, did_you_mean, names_of, replace


@component
class FleetFamily(EnvFamily):
    """Agents whose physics was read from a table: one row each, some rows kept unseen.

    Args:
        env: the environment.
        train: parameters of the training agents, leaves [N, ...].
        unseen: parameters of the held-out agents, leaves [M, ...].
        labels: names of the training agents.
        unseen_labels: names of the held-out agents.
    """

    env: Environment = static()
    train: Params
    unseen: Params
    labels: tuple[str, ...] = static()
    unseen_labels: tuple[str, ...] = static()

    @property
    def num_agents(self) -> int:
        return len(self.labels)

    @property
    def num_unseen(self) -> int:
        return len(self.unseen_labels)

    def sample(self, key: jax.Array, num_agents: int) -> Params:
        """The training rows in the order of the table; nothing is drawn."""
        del key
        if num_agents != self.num_agents:
            raise ValueError(
                f"num_agents must be {self.num_agents}, the number of training rows of the fleet "
                f"({len(self.unseen_labels)} more are kept unseen), got {num_agents}"
            )
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), self.train)

    def sample_unseen(self, key: jax.Array, num_agents: int) -> Params:
        """The held-out rows, again from the first one when more are asked for."""
        del key
        if not self.unseen_labels:
            raise ValueError("the fleet keeps no row unseen; read it with holdout > 0 and at least two rows")
        rows = jnp.arange(num_agents) % len(self.unseen_labels)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf))[rows], self.unseen)


def fleet_family(path: str | Path, environment: str | Environment = "cartpole", holdout: float = 0.2) -> FleetFamily:
    """A fleet of machines from a table: each row is an agent, each column a physics parameter.

    Parameters without a column are nominal. A column `agent` names the agents; otherwise they are called after their
    rows. A column `set_point` switches CartPole to the reward of that name. Which rows are kept unseen depends on their
    number only.

    Args:
        path: a CSV file with commas and a header, or a Parquet file (.parquet; needs pyarrow).
        environment: "cartpole", the name of a gymnax environment, or an environment.
        holdout: share of the rows kept unseen, in [0, 1); at least one of two or more rows, unless it is 0.

    Raises:
        ValueError: a table without rows, unknown or repeated columns, missing cells, or impossible numbers; the message
            tells row and column, counted as a spreadsheet does: the header is row 1.
        ImportError: Parquet without pyarrow.
    """
    check_range("holdout", holdout, 0.0, 1.0, open_high=True)
    path = Path(path)
    table = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _read_csv(path)
    env = _environment(environment, table.header)
    _check_header(path, env, table.header)
    columns, labels = _columns(path, env, table)

    unseen = _held_out(len(labels), holdout)
    train = [row for row in range(len(labels)) if row not in unseen]
    return FleetFamily(
        env,
        _take(env, columns, train),
        _take(env, columns, sorted(unseen)),
        tuple(labels[row] for row in train),
        tuple(labels[row] for row in sorted(unseen)),
    )


class _Table(NamedTuple):
    header: list[str]
    rows: Sequence[tuple[int, Sequence[Any]]]  # row number as a spreadsheet counts, cells


def _read_csv(path: Path) -> _Table:
    """Header and rows of a CSV file; blank lines are passed over."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}, after row {reader.line_num}: not a CSV file in UTF-8 ({error})") from None
    if not rows:
        raise ValueError(
            f"{path} is empty; it needs a header with the names of physics parameters, and a row per agent"
        )
    (_, header), *rows = rows
    for number, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{path}, row {number}: {len(cells)} cells, but the header has {len(header)} columns")
    return _Table([name.strip() for name in header], rows)


def _read_parquet(path: Path) -> _Table:
    """Header and rows of a Parquet file."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"{path} needs pyarrow: pip install 'fedjax_rl[parquet]', or save the table as CSV"
        ) from error
    table = pyarrow.parquet.read_table(path)
    columns = [column.to_pylist() for column in table.columns]
    return _Table(list(table.column_names), list(enumerate(zip(*columns, strict=True), start=2)))


def _environment(environment: str | Environment, header: list[str]) -> Environment:
    """The environment that the table is about."""
    if isinstance(environment, Environment):
        return environment
    if environment.lower() in ("cartpole", "cartpole-v1"):
        return CartPole(reward="set_point" if "set_point" in header else "survival")
    return gymnax_environment(environment)


def _check_header(path: Path, env: Environment, header: list[str]) -> None:
    """Raises unless every column is a parameter that can differ between agents, or `agent`, and none comes twice."""
    nominal = env.default_params
    known = [name for name in names_of(nominal) if np.ndim(getattr(nominal, name)) == 0]
    dead = dead_parameters(env, tuple(header))
    for index, name in enumerate(header):
        place = f"{path}, row 1, column {index + 1}"
        if name not in (*known, "agent"):
            remedy = did_you_mean(name, ["agent", *known])
            if len(header) == 1 and (";" in name or "\t" in name):
                remedy = "columns are separated by commas, not by semicolons or tabs"
            raise ValueError(f"{place}: {name!r} is not a parameter of {env.name}; {remedy}")
        if name in dead:
            raise ValueError(f"{place}: {name!r} of {env.name} cannot be given: {dead[name]}")
        if name in header[:index]:
            raise ValueError(f"{place}: {name!r} comes twice")


def _columns(path: Path, env: Environment, table: _Table) -> tuple[dict[str, np.ndarray], list[str]]:
    """The numbers by column, and the agents' names."""
    if not table.rows:
        raise ValueError(f"{path} has a header but no rows; it needs one for each agent")
    nominal = env.default_params
    labels = [f"row {number}" for number, _ in table.rows]
    columns = {}
    for index, name in enumerate(table.header):
        cells = [(f"{path}, row {number}, column {name!r}", cells[index]) for number, cells in table.rows]
        if name == "agent":
            labels = _labels(cells)
            continue
        default = getattr(nominal, name)
        rule = env.rules.get(name, Rule())
        if isinstance(default, bool | np.bool_):
            rule = Rule(values=(0.0, 1.0))
        elif np.issubdtype(np.result_type(default), np.integer):
            rule = rule._replace(integer=True)
        values = [_number(place, cell, rule) for place, cell in cells]
        columns[name] = np.asarray(values, np.result_type(default))
    return columns, labels


def _labels(cells: list[tuple[str, Any]]) -> list[str]:
    """The agents' names, which must be distinct."""
    seen: set[str] = set()
    for place, cell in cells:
        label = "" if cell is None else str(cell).strip()
        if not label:
            raise ValueError(f"{place}: empty; every agent needs a name, or leave the column out")
        if label in seen:
            raise ValueError(f"{place}: the agent {label!r} comes twice")
        seen.add(label)
    return [str(cell).strip() for _, cell in cells]


def _number(place: str, cell: Any, rule: Rule) -> float:
    """The number in a cell."""
    if cell is None or str(cell).strip() == "":
        raise ValueError(f"{place}: empty; give a number, or leave the column out for the nominal value")
    try:
        number = float(cell)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: {cell!r} is not a number") from None
    if not rule.admits(number):
        remedy = f"; {rule.remedy}" if rule.remedy else ""
        raise ValueError(f"{place}: {rule.requirement()}, got {str(cell).strip()}{remedy}")
    return number


def _held_out(num_rows: int, share: float) -> set[int]:
    """Rows kept unseen: those that come first when shuffled by a hash of their number, the same on every machine."""
    if share == 0 or num_rows < 2:
        return set()
    count = min(max(1, round(share * num_rows)), num_rows - 1)
    shuffled = sorted(range(num_rows), key=lambda row: hashlib.sha256(f"unseen {row}".encode()).digest())
    return set(shuffled[:count])


def _take(env: Environment, columns: dict[str, np.ndarray], rows: list[int]) -> Params:
    """Parameters of some rows, leaves [rows, ...] in NumPy's double precision."""
    nominal = env.default_params
    stacked = {
        name: columns[name][rows]
        if name in columns
        else jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(rows), *np.shape(leaf))), getattr(nominal, name))
        for name in names_of(nominal)
    }
    return replace(nominal, **stacked)
