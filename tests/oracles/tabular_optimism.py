"""Optimistic learners of episodic MDPs as loops over agents, steps and places, in the papers' notation.

`play(t, c, pi)` returns what agent c sees in tick t by the policy pi[h, s]: lists s, a, r, s' of length H.
"""

import numpy as np


def greedy(Q: np.ndarray) -> np.ndarray:
    """pi[h, s], the first of equal actions."""
    return np.array([[int(np.argmax(Q[h, s])) for s in range(Q.shape[1])] for h in range(Q.shape[0])])


def fed_ucbvi(play, M, T, H, S, A, *, trigger, bonus, ep, delta, trust, ticks):
    """Labbi et al. (2025): agents normalise their own counts and upload Phat V, Phat V^2, Qhat, n, step by step."""
    n = np.zeros((M, H, S, A))
    n_next = np.zeros((M, H, S, A, S))
    r_sum = np.zeros((M, H, S, A))
    n_old, N, synced = n.copy(), np.zeros((H, S, A)), 0
    Q = np.array([np.full((S, A), float(H - h)) for h in range(H)])
    pi = greedy(Q)
    beta_c = np.log(6 * S * A * H / delta) + np.log(6 * np.e * (2 * T + 1))
    threshold = trust * (14 * ep * T * H * M + 182 * M * beta_c)
    for t in range(ticks):
        sync = []
        for c in range(M):
            s, a, r, s2 = play(t, c, pi)
            for h in range(H):
                x = (c, h, s[h], a[h])
                n[x] += 1
                n_next[(*x, s2[h])] += 1
                r_sum[x] += r[h]
                common = N[x[1:]]
                doubled = n[x] >= 2 * n_old[x]
                looks_doubled = common + M * (n[x] - n_old[x]) >= 2 * common
                mixed = doubled if common < threshold else looks_doubled
                if {"local": doubled, "global": looks_doubled, "mixture": mixed}[trigger]:
                    sync.append(c)
        if sync:
            synced += 1
            V = np.zeros(S)
            for h in reversed(range(H)):
                uploads = [ucbvi_upload(n[c, h], n_next[c, h], r_sum[c, h], V) for c in range(M)]
                for s in range(S):
                    for a in range(A):
                        Q[h, s, a] = ucbvi_entry(
                            [[u[s, a] for u in up] for up in uploads], M, T, H, S, A, bonus, ep, delta
                        )
                V = np.array([max(Q[h, s]) for s in range(S)])
            pi, N, n_old = greedy(Q), n.sum(0), n.copy()
        yield {"Q": Q.copy(), "pi": pi.copy(), "N": N.copy(), "synced": synced, "raised": len(set(sync))}


def ucbvi_upload(n, n_next, r_sum, V):
    """One agent's Phat V, Phat V^2, Qhat = r + Phat V, n; all [S, A]."""
    # Extended precision: the root of a variance that is a difference of squares loses half of the digits.
    P, V = n_next / np.maximum(n, 1, dtype=np.longdouble)[..., None], V.astype(np.longdouble)
    PV = np.einsum("sat,t->sa", P, V)
    return PV, np.einsum("sat,t->sa", P, V**2), r_sum / np.maximum(n, 1) + PV, n


def ucbvi_entry(uploads, M, T, H, S, A, bonus, ep, delta):
    """Qhat of one place, from what the agents uploaded of it."""
    N = sum(n for _, _, _, n in uploads)
    if N < 2:
        return float(H)
    variance = max(sum(n * v2 for _, v2, _, n in uploads) / N - (sum(n * v for v, _, _, n in uploads) / N) ** 2, 0)
    if bonus == "practical":
        b = H / N + np.sqrt(variance / N)
    else:
        L = np.log(2 * H * S * A * M * T / delta)
        b = max(4 * np.sqrt(variance * L / N), 16 * H * L / N) + H * ep
    return min(sum(n * q for _, _, q, n in uploads) / N + b, H)


def ucbvi_with_doubling(play, H, S, A, ticks):
    """Azar et al. (2017) with the bonus H / N + sqrt(Var / N), planning again when a count has doubled."""
    n, n_next, reward = {}, {}, {}
    planned: dict = {}
    Q = np.array([np.full((S, A), float(H - h)) for h in range(H)])
    for t in range(ticks):
        again = False
        s, a, r, s2 = play(t, 0, greedy(Q))
        for h in range(H):
            x = (h, s[h], a[h])
            n[x] = n.get(x, 0) + 1
            n_next.setdefault(x, []).append(s2[h])
            reward[x] = r[h]
            again |= n[x] >= 2 * planned.get(x, 0)
        if again:
            V = np.zeros(S)
            for h in reversed(range(H)):
                for s_ in range(S):
                    for a_ in range(A):
                        x = (h, s_, a_)
                        k = n.get(x, 0)
                        Q[x] = H
                        if k >= 2:
                            seen = V[n_next[x]]
                            Q[x] = min(reward[x] + np.mean(seen) + H / k + np.sqrt(np.var(seen) / k), H)
                V = Q[h].max(-1)
            planned = dict(n)
        yield Q.copy()


def fed_q(play, uniform, M, T, H, S, A, *, bonus, scale, delta, ticks):
    """Zheng et al. (2024), one visit after the other; `uniform(t, i)` f[H, S, A] picks the i-th next state."""
    Q, V = np.full((H, S, A), float(H)), np.full((H + 1, S), float(H))
    V[H] = 0
    N = np.zeros((H, S, A), int)
    n, seen = np.zeros((M, H, S, A), int), [[[[] for _ in range(A)] for _ in range(S)] for _ in range(H)]
    moments = np.zeros((2, H, S, A))
    iota, synced = np.log(2 * H * S * A * M * T / delta), 0

    def alpha(t):
        return (H + 1) / (H + t)

    def beta(t, first, second):
        if t == 0:
            return 0.0
        W = max(second / t - (first / t) ** 2, 0)
        low = iota * (np.sqrt(H**7 * S * A) + np.sqrt(M * S * A * H**6)) / t
        return scale * min(np.sqrt(H * iota * (W + H) / t) + low, np.sqrt(H**3 * iota / t))

    for tick in range(ticks):
        pi, sync = greedy(Q), False
        for c in range(M):
            s, a, r, s2 = play(tick, c, pi)
            for h in range(H):
                n[c, h, s[h], a[h]] += 1
                seen[h][s[h]][a[h]].append((r[h], s2[h]))
                sync |= n[c, h, s[h], a[h]] >= max(1, N[h, s[h], a[h]] // (M * H * (H + 1)))
        if sync:
            synced += 1
            for h in range(H):
                for s_ in range(S):
                    for a_ in range(A):
                        x, new = (h, s_, a_), seen[h][s_][a_]
                        values = [V[h + 1][s2] for _, s2 in new]
                        if N[x] < 2 * M * H * (H + 1):
                            values = [V[h + 1][s2] for s2 in shuffled(new, S, lambda i, t=tick, x=x: uniform(t, i)[x])]
                        elif new:
                            values = [np.mean(values)] * len(new)
                        true = [V[h + 1][s2] for _, s2 in new]
                        total = beta(
                            N[x] + len(new), moments[0][x] + sum(true), moments[1][x] + sum(v**2 for v in true)
                        )
                        last, q = beta(N[x], *moments[:, h, s_, a_]), Q[x]
                        kept, added = 1.0, 0.0
                        r_ = np.mean([r for r, _ in new]) if new else 0.0
                        for i, v in enumerate(values):
                            t = N[x] + i + 1
                            q = (1 - alpha(t)) * q + alpha(t) * (r_ + v)
                            added = (1 - alpha(t)) * added + alpha(t) * scale * np.sqrt(H**3 * iota / t)
                            kept *= 1 - alpha(t)
                        if new:
                            Q[x] = q + (added if bonus == "hoeffding" else (total - kept * last) / 2)
                        moments[:, h, s_, a_] += [sum(true), sum(v**2 for v in true)]
                        N[x] += len(new)
                        new.clear()
            V = np.array([[min(H, max(Q[h, s_])) for s_ in range(S)] for h in range(H)] + [[0.0] * S])
            n[:] = 0
        yield {"Q": Q.copy(), "V": V.copy(), "pi": greedy(Q), "N": N.copy(), "synced": synced}


def shuffled(new, S, uniform):
    """The next states of a tally, taken out one by one: the i-th by the quantile of what is left."""
    left = [sum(s2 == s for _, s2 in new) for s in range(S)]
    order = []
    for i in range(len(new)):
        cumulative, total, u = 0.0, sum(left), uniform(i)
        for s in range(S):
            cumulative += left[s] / total
            if u < cumulative or sum(left[s + 1 :]) == 0:
                break
        left[s] -= 1
        order.append(s)
    return order
