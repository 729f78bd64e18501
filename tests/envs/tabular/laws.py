"""Whether frequencies fit a law."""

import numpy as np


def check_frequencies(drawn, law):
    """Pearson's statistic over all rows, and that nothing of probability zero was drawn.

    A row of k possible values and n independent draws gives a statistic that is about chi-squared with k - 1 degrees of
    freedom; rows add up to d. By Laurent and Massart P(chi2_d >= d + 2 sqrt(15 d) + 30) <= e^-15 = 3e-7, and as little
    on the other side, P(chi2_d <= d - 2 sqrt(15 d)) <= 3e-7, so a sampler that is too regular fails as well.

    Args:
        drawn: i[..., n] draws by row.
        law: f[..., k] probabilities.
    """
    drawn, law = np.asarray(drawn), np.asarray(law, np.float64)
    law = law / law.sum(-1, keepdims=True)
    rows, laws = drawn.reshape(-1, drawn.shape[-1]), law.reshape(-1, law.shape[-1])
    assert rows.shape[0] == laws.shape[0]
    statistic, freedom = 0.0, 0
    for row, p in zip(rows, laws, strict=True):
        counts, expected = np.bincount(row, minlength=len(p)), len(row) * p
        assert len(counts) == len(p)
        assert not counts[p == 0].any()
        rare = (p > 0) & (expected < 10)  # one class together, so that the approximation holds
        classes = [*np.flatnonzero((p > 0) & ~rare)]
        observed = [counts[k] for k in classes] + ([counts[rare].sum()] if rare.any() else [])
        wanted = [expected[k] for k in classes] + ([expected[rare].sum()] if rare.any() else [])
        statistic += sum((o - e) ** 2 / e for o, e in zip(observed, wanted, strict=True))
        freedom += len(wanted) - 1
    slack = 2 * np.sqrt(15 * freedom)
    assert freedom - slack <= statistic <= freedom + slack + 30, (statistic, freedom)
