"""A fleet from a table."""

import sys

import jax
import numpy as np
import pytest

from fedjax_rl.envs import CartPole, CartPoleParams, fleet_family, physics_table, pooled


KEY = jax.random.key(0)


def write(tmp_path, text, name="fleet.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def fleet_of(tmp_path, num_rows, **kwargs):
    """Row i has masspole (i + 1) / 100 and is called cart i."""
    rows = "".join(f"cart {i},{(i + 1) / 100}\n" for i in range(num_rows))
    return fleet_family(write(tmp_path, "agent,masspole\n" + rows), **kwargs)


def test_rows_become_agents(tmp_path):
    path = write(
        tmp_path, "half_length, masspole ,max_steps_in_episode\n0.25,0.1,200\n\n0.5, 2e-1,300.0\n0.75,0.3,400\n"
    )
    family = fleet_family(path, holdout=0)
    assert family.num_agents == 3
    assert family.labels == ("row 2", "row 4", "row 5")
    assert family.env == CartPole()
    physics = family.sample(KEY, 3)
    np.testing.assert_allclose(physics.half_length, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(physics.masspole, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(physics.max_steps_in_episode, [200, 300, 400])
    for name, value in CartPoleParams()._asdict().items():
        leaf = getattr(physics, name)
        assert leaf.shape == (3,)
        assert leaf.dtype == (np.int32 if isinstance(value, int) else np.float32)
        if name not in ("half_length", "masspole", "max_steps_in_episode"):
            np.testing.assert_allclose(leaf, value, rtol=1e-6)
    assert list(physics_table(physics)) == list(CartPoleParams._fields)


@pytest.mark.parametrize(
    ("num_rows", "holdout", "unseen"), [(10, 0.2, 2), (2, 0.2, 1), (3, 0.9, 2), (7, 0.5, 4), (1, 0.2, 0)]
)
def test_some_rows_are_kept_unseen(tmp_path, num_rows, holdout, unseen):
    family = fleet_of(tmp_path, num_rows, holdout=holdout)
    assert family.num_agents == num_rows - unseen
    assert len(family.unseen_labels) == unseen
    assert {*family.labels, *family.unseen_labels} == {f"cart {i}" for i in range(num_rows)}
    expected = [(int(label.split()[1]) + 1) / 100 for label in family.labels]
    np.testing.assert_allclose(family.sample(KEY, family.num_agents).masspole, expected, rtol=1e-6)
    again = fleet_of(tmp_path, num_rows, holdout=holdout)
    assert again.labels == family.labels
    if unseen:
        rows = [(int(label.split()[1]) + 1) / 100 for label in family.unseen_labels]
        # Asked for more, it starts again.
        np.testing.assert_allclose(family.sample_unseen(KEY, 2 * unseen + 1).masspole, rows * 2 + rows[:1], rtol=1e-6)


def test_rows_kept_unseen_are_no_block(tmp_path):
    rows = sorted(int(label.split()[1]) for label in fleet_of(tmp_path, 100).unseen_labels)
    assert len(rows) == 20
    # A table is often sorted by a parameter, and the unseen rows must not be its tail: the mean rank of 20 out of 100
    # shuffled rows is 49.5 with standard error 5.8.
    assert abs(np.mean(rows) - 49.5) < 3 * 5.8
    assert rows[0] < 20 and rows[-1] >= 80


def test_numbers_of_agents_must_agree(tmp_path):
    family = fleet_of(tmp_path, 10)
    with pytest.raises(ValueError, match=r"num_agents must be 8, .*2 more are kept unseen.*got 10"):
        family.sample(KEY, 10)
    with pytest.raises(ValueError, match=r"holdout > 0"):
        fleet_of(tmp_path, 10, holdout=0).sample_unseen(KEY, 1)
    everything = pooled(family)
    assert everything.num_envs == 8
    np.testing.assert_array_equal(everything.sample(KEY, 1).masspole[0], family.sample(KEY, 8).masspole)
    with pytest.raises(ValueError, match=r"num_envs must be 8, the number of agents of the family, got 5"):
        pooled(family, 5)


def test_conflicts_and_other_environments(tmp_path):
    family = fleet_family(write(tmp_path, "actuator_polarity,set_point\n-1,0.5\n1,-0.5\n"), holdout=0)
    assert family.env == CartPole(reward="set_point")
    np.testing.assert_array_equal(family.sample(KEY, 2).actuator_polarity, [-1, 1])
    path = write(tmp_path, "m,l\n1.5,0.5\n0.5,1.5\n")
    family = fleet_family(path, "pendulum", holdout=0)
    assert family.env.name == "Pendulum-v1"
    np.testing.assert_array_equal(family.sample(KEY, 2).l, [0.5, 1.5])
    assert fleet_family(write(tmp_path, "tau\n0.01\n"), CartPole(continuous=True)).env == CartPole(continuous=True)
    acrobot = fleet_family(write(tmp_path, "link_moi\n1.5\n2\n"), "Acrobot-v1", 0).sample(KEY, 2)
    np.testing.assert_array_equal(acrobot.available_torque, [[-1, 0, 1]] * 2)


def test_double_precision(tmp_path, x64):
    family = fleet_family(write(tmp_path, "gravity\n9.81\n1.62\n"), holdout=0)
    np.testing.assert_array_equal(family.sample(KEY, 2).gravity, [9.81, 1.62])
    np.testing.assert_array_equal(jax.jit(lambda f: f.sample(KEY, 2))(family).gravity, [9.81, 1.62])


def test_a_family_is_data(tmp_path):
    traces = []

    @jax.jit
    def total(family):
        traces.append(1)
        return family.sample(KEY, 2).gravity.sum()

    for text in ("gravity\n1\n2\n", "gravity\n3\n4\n"):
        total(fleet_family(write(tmp_path, text), holdout=0))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("is empty", "header")),
        ("\n \n", ("is empty",)),
        ("masspole\n", ("header but no rows",)),
        ("masspole,masscat\n1,1\n", ("row 1, column 2", "'masscat'", "did you mean 'masscart'")),
        ("length\n1\n", ("row 1, column 1", "'length'", "did you mean 'half_length'")),
        ("masspole;tau\n1;2\n", ("row 1, column 1", "commas, not by semicolons")),
        ("tau,masspole,tau\n1,1,1\n", ("row 1, column 3", "'tau' comes twice")),
        ("tau,masspole\n0.1,0.2\n0.1\n", ("row 3", "1 cells", "2 columns")),
        ("tau,masspole\n0.1,0.2,0.3\n", ("row 2", "3 cells")),
        ("tau,masspole\n0.1,0.2\n0.1,heavy\n", ("row 3, column 'masspole'", "'heavy' is not a number")),
        ("tau,masspole\n0.1,\n", ("row 2, column 'masspole'", "empty", "leave the column out")),
        ("tau\n0.1\nnan\n", ("row 3, column 'tau'", "must be > 0, got nan")),
        ("gravity\ninf\n", ("row 2, column 'gravity'", "got inf")),
        ("masspole\n-0.1\n", ("row 2, column 'masspole'", "must be > 0, got -0.1")),
        ("masscart\n1\n\n0\n", ("row 4, column 'masscart'", "must be > 0, got 0")),
        ("half_length\n-1\n", ("row 2, column 'half_length'", "must be > 0")),
        ("tau\n0\n", ("row 2, column 'tau'", "must be > 0")),
        ("max_steps_in_episode\n99.5\n", ("row 2, column 'max_steps_in_episode'", "an integer >= 1, got 99.5")),
        ("actuator_polarity\n0.5\n", ("row 2, column 'actuator_polarity'", "one of -1, 1")),
        ("theta_threshold\n12\n", ("row 2, column 'theta_threshold'", "radians")),
        ("agent,tau\na,0.1\nb,0.1\na,0.1\n", ("row 4, column 'agent'", "'a' comes twice")),
        ("agent,tau\na,0.1\n ,0.1\n", ("row 3, column 'agent'", "needs a name")),
    ],
)
def test_errors_tell_row_and_column(tmp_path, text, words):
    with pytest.raises(ValueError) as caught:
        fleet_family(write(tmp_path, text))
    for word in ("fleet.csv", *words):
        assert word in str(caught.value)


def test_errors_of_the_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"holdout must lie in \[0, 1\), got 1.0"):
        fleet_of(tmp_path, 3, holdout=1.0)
    with pytest.raises(FileNotFoundError):
        fleet_family(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="did you mean 'Pendulum-v1'"):
        fleet_of(tmp_path, 3, environment="pendulumm")
    with pytest.raises(ValueError, match=r"row 1, column 1.*link_length_2.*renderer"):
        fleet_family(write(tmp_path, "link_length_2\n1\n"), "acrobot")


def test_a_table_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "fleet.csv"
    path.write_bytes("tau,masspole\r\n0.1,0.2\r\n".encode("utf-8-sig"))
    assert fleet_family(path).num_agents == 1


def test_a_file_that_is_no_table(tmp_path):
    path = tmp_path / "fleet.csv"
    path.write_bytes("agent,tau\nMühle,0.1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"fleet.csv.*not a CSV file in UTF-8"):
        fleet_family(path)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "fleet.parquet"
    table = {"agent": ["a", "b", "c"], "masspole": [0.1, 0.2, 0.3], "max_steps_in_episode": [100, 200, 300]}
    parquet.write_table(pyarrow.table(table), path)
    family = fleet_family(path, holdout=0)
    assert family.labels == ("a", "b", "c")
    np.testing.assert_allclose(family.sample(KEY, 3).masspole, [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(family.sample(KEY, 3).max_steps_in_episode, [100, 200, 300])
    parquet.write_table(pyarrow.table({"masspole": [0.1, None]}), path)
    with pytest.raises(ValueError, match=r"row 3, column 'masspole': empty"):
        fleet_family(path)
    parquet.write_table(pyarrow.table({"masspole": pyarrow.array([], pyarrow.float64())}), path)
    with pytest.raises(ValueError, match="header but no rows"):
        fleet_family(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pyarrow.*save the table as CSV"):
        fleet_family(tmp_path / "fleet.parquet")
