"""A comparison to look at: its tables and its picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ._comparison_prices import PER_AGENT, TOTAL
from ._plots import _AXIS_NAMES, _GREY, _STYLES, COLOURS, _figure, _save, _tidy, curve
from ._progress import amount
from ._runs import Comparison, Run, prices


_MARKERS = "o^sDvPX*"  # not as many as colours, so that the two repeat together only late
_PER_AGENT_NAME = {PER_AGENT: "environment steps per agent"}
_LABEL = 14  # columns that a label has at least, before it breaks
_FAR_APART = 8.0  # prices that differ by more are drawn on a logarithmic axis


def comparison_tables(comparison: Comparison, *, for_good: bool = False) -> list[Table]:
    """The last returns, those at equal prices, and for each threshold what it took to reach it.

    Args:
        comparison: what to show.
        for_good: whether a threshold is reached when no later evaluation falls below it.
    """
    report = comparison.report
    tables = [_last_returns(report), _at_equal(report)]
    if report["runs"][0]["totals"] or report["runs"][0]["means"]:
        tables.append(_fields(report))
    tables += [_threshold(report, f"{threshold:g}", for_good) for threshold in report["thresholds"]]
    return tables


def _last_returns(report: Mapping[str, Any]) -> Table:
    percent = f"{100 * report['confidence']:g} %"
    table = _table(f"Return in {report['returns_from']}, with {percent} intervals over seeds")
    table.add_column("run", overflow="fold", min_width=_LABEL)
    for name in ("seeds", "mean", "interquartile mean", "worst decile", "minus the first"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in report["runs"]:
        returns, difference = run["return"], run["difference"]
        shown = ""
        if difference is not None:
            shown = f"{_interval(difference, '+')}\n{'paired' if difference['paired'] else 'unpaired'}"
        table.add_row(
            escape(run["label"]),
            str(len(run["seeds"])),
            *(escape(_interval(returns[name])) for name in ("mean", "interquartile_mean", "worst_decile")),
            escape(shown),
        )
    return table


def _at_equal(report: Mapping[str, Any]) -> Table:
    """What was paid in all, and the return where all have paid the same."""
    table = _table("Paid in all; below it the return where everybody has paid as much as the one who paid least")
    table.add_column("run", overflow="fold", min_width=_LABEL)
    for name in report["prices"]:
        table.add_column(escape(f"{price_name(name)}\nat {_short(report['equal_prices'][name])}"), justify="right")
    for run in report["runs"]:
        cells = [f"{_short(run[name])}\n{_or_nothing(run['at_equal'][name])}" for name in report["prices"]]
        table.add_row(escape(run["label"]), *(escape(cell) for cell in cells))
    return table


def _fields(report: Mapping[str, Any]) -> Table:
    """The totals and means that were asked for."""
    table = _table("Totals and means over the rounds")
    table.add_column("run", overflow="fold", min_width=_LABEL)
    for kind in ("totals", "means"):
        for name in report["runs"][0][kind]:
            table.add_column(escape(f"{name.replace('_', ' ')},\n{kind[:-1]}"), justify="right")
    for run in report["runs"]:
        cells = [_or_nothing(found) for found in run["totals"].values()]
        cells += [_or_nothing(found, 3) for found in run["means"].values()]
        table.add_row(escape(run["label"]), *(escape(cell) for cell in cells))
    return table


def _or_nothing(estimate: Mapping[str, Any] | None, digits: int = 1) -> str:
    return "" if estimate is None else _interval(estimate, digits=digits)


def _short(value: float) -> str:
    return f"{value:g}" if value < 1000 else amount(value)


def price_name(name: str) -> str:
    """What an axis or a column of a price is called."""
    known = {**_AXIS_NAMES, **_PER_AGENT_NAME}
    return known[name] if name in known else name.removesuffix(TOTAL).replace("_", " ")


def _threshold(report: Mapping[str, Any], threshold: str, for_good: bool) -> Table:
    when = "for good" if for_good else "for the first time"
    table = _table(f"Mean return of the agents ≥ {threshold} {when}: median (25 %, 75 %) over seeds; ∞: never")
    table.add_column("run", overflow="fold", min_width=_LABEL)
    headings = {"round": "rounds"} | {name: price_name(name) for name in report["prices"][1:]}
    for name in ("seeds that did", *headings.values()):
        table.add_column(escape(name.replace(", ", ",\n")), justify="right", no_wrap=len(headings) < 4)
    for run in report["runs"]:
        found = run["thresholds"][threshold]["for_good" if for_good else "first"]
        share, count = found["share"], len(run["seeds"])
        seeds = f"{found['reached']}/{count} [{100 * share['low']:.0f}, {100 * share['high']:.0f} %]"
        paid = (_quantiles(found[price]["quantiles"], price) for price in headings)
        table.add_row(escape(run["label"]), escape(seeds), *paid)
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _interval(estimate: Mapping[str, Any], sign: str = "", digits: int = 1) -> str:
    value = f"{estimate['value']:{sign}.{digits}f}"
    if estimate["low"] is None:
        return value
    return f"{value} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def _quantiles(quantiles: Mapping[str, Mapping[str, Any]], price: str) -> str:
    def shown(value: float | None) -> str:
        return "∞" if value is None else f"{value:.0f}" if price == "round" or value < 1000 else amount(value)

    low, median, high = (shown(quantiles[level]["value"]) for level in ("0.25", "0.5", "0.75"))
    return "∞" if low == "∞" else f"{median} ({low}, {high})"


def plot_comparison(
    runs: Sequence[Run], path: str | Path, thresholds: Sequence[float] = (), against: Sequence[str] | None = None
) -> Path:
    """Draws the return of every run against rounds, environment steps, uplink and, with clocks, time, side by side.

    Args:
        runs: the runs.
        path: the picture, a PNG, SVG or PDF file.
        thresholds: levels to mark, where the curves come near them.
        against: names of the prices; None: those that every run counts.
    """
    from matplotlib.ticker import EngFormatter

    against = against or prices(runs)
    figure = _figure(11.0 / 3 * len(against), 4.1)
    panels = figure.subplots(1, len(against), sharey=True)
    for axes, price in zip(panels, against, strict=True):
        ends = []
        for number, run in enumerate(runs):
            line = curve(run.history, "return_mean", price)  # pyright: ignore[reportArgumentType]
            assert line is not None  # `compare` has refused runs without evaluations
            if line.x[-1] == 0:  # nothing was sent
                continue
            ends.append(line.x[-1])
            colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
            every = max(1, len(line.x) // 10)
            style = _STYLES[number // len(COLOURS) % len(_STYLES)]
            axes.plot(line.x, line.mean, style, color=colour, linewidth=1.7, marker=marker, markersize=4,
                      markevery=every, label=run.label)  # fmt: skip
            if len(run.evaluations) > 1:  # episodes of a single seed would be a band of another meaning
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xlabel(price_name(price))
        _tidy(axes)
        axes.margins(x=0.02)
        if ends and max(ends) > _FAR_APART * min(ends):
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
            axes.xaxis.get_major_locator().set_params(nbins=6, integer=True)
        if price != "round":
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    _mark_thresholds(panels, thresholds)
    panels[0].set_ylabel("mean return of the agents")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(runs), 4), frameon=False, fontsize=9)
    figure.supxlabel(_meaning(runs), fontsize=8, color=_GREY)
    return _save(figure, path)


def _mark_thresholds(panels: Sequence[Any], thresholds: Sequence[float]) -> None:
    low, high = panels[0].get_ylim()
    for axes in panels:
        for threshold in thresholds:
            if low <= threshold <= high:
                axes.axhline(threshold, color=_GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def _meaning(runs: Sequence[Run]) -> str:
    numbers = sorted({len(run.evaluations) for run in runs})
    several = [str(number) for number in numbers if number > 1]
    said = "a single seed each, without an interval"
    if several:
        said = f"mean and 95 % bootstrap interval over {' or '.join(several)} seeds"
        said += " (a single seed has none)" if numbers[0] == 1 else ""
    return said + "; thin dashes: thresholds"
