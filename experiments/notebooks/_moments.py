"""Exact first and second moments of FedLSA with i.i.d. samples: no small step size, no independence of A and b."""

import numpy as np


class FedLSAMoments:
    """How the mean and the second moment of the error e_t = theta_t - centre move from round to round.

    A local step is e <- B e + u with B = I - eta phi(s) (phi(s) - gamma phi(s'))^T and u = eta phi(s) delta, delta the
    TD error at the centre. With X = E e e^T and x = E e the vector (X, x, 1) moves linearly,

        X <- E[B X B^T] + E[B x u^T] + E[u x^T B^T] + E[u u^T],    x <- E[B] x + E[u],

    so H steps are a matrix power; agents are independent given the common parameters they start from.

    Args:
        features: f[S, d].
        chain: f[N, S, S] of each agent.
        reward: f[N, S].
        law: f[N, S] of the states.
        discount: gamma.
        step_size: eta.
        num_local_steps: H.
        centre: f[d], such as theta*.
        num_agents: where more, equally many with each of the N worlds.
    """

    def __init__(self, features, chain, reward, law, discount, step_size, num_local_steps, centre, num_agents=None):
        features, chain, reward, law, centre = (
            np.asarray(x, np.float64) for x in (features, chain, reward, law, centre)
        )
        (num_worlds, num_states), size = law.shape, features.shape[1]
        num_agents = num_agents or num_worlds
        self.size = size
        here = np.repeat(features, num_states, 0)  # [S S, d] of the pairs (s, s')
        turn = (
            np.eye(size)
            - step_size * here[:, :, None] * (here - discount * np.tile(features, (num_states, 1)))[:, None]
        )
        weight = (law[:, :, None] * chain).reshape(num_worlds, -1)
        error = reward[:, :, None] + discount * (features @ centre)[None, None] - (features @ centre)[None, :, None]
        error = weight * error.reshape(num_worlds, -1)  # f[N, S S] probability x TD error at the centre
        squares = np.divide(error**2, weight, out=np.zeros_like(error), where=weight > 0)
        pairs = len(here)
        both = np.einsum("pij,pkl->pikjl", turn, turn).reshape(pairs, -1)
        mixed = np.einsum("pij,pk->pikj", turn, step_size * here)
        mixed = (mixed + np.swapaxes(mixed, 1, 2)).reshape(pairs, -1)  # of x in B x u^T + u x^T B^T
        constant = step_size**2 * np.einsum("pi,pk->pik", here, here).reshape(pairs, -1)
        one = np.zeros((num_worlds, size**2 + size + 1, size**2 + size + 1))
        second, first = slice(0, size**2), slice(size**2, size**2 + size)
        one[:, second, second] = (weight @ both).reshape(num_worlds, size**2, size**2)
        one[:, second, first] = (error @ mixed).reshape(num_worlds, size**2, size)
        one[:, second, -1] = squares @ constant
        one[:, first, first] = (weight @ turn.reshape(pairs, -1)).reshape(num_worlds, size, size)
        one[:, first, -1] = error @ (step_size * here)
        one[:, -1, -1] = 1
        many = np.linalg.matrix_power(one, num_local_steps)
        matrix, vector = many[:, first, first], many[:, first, -1]
        total = many.mean(0) / num_agents
        each = sum(self._outer(m, v) for m, v in zip(matrix, vector, strict=True)) / num_worlds / num_agents
        total[second] = many[:, second].mean(0) / num_agents - each + self._outer(matrix.mean(0), vector.mean(0))
        total[first], total[-1] = many[:, first].mean(0), np.eye(len(total))[-1]
        self.round = total

    def after(self, start, num_rounds):
        """E e e^T and E e after some rounds, from e_0 = start."""
        state = np.linalg.matrix_power(self.round, num_rounds) @ self._state(start)
        return state[: self.size**2].reshape(self.size, self.size), state[self.size**2 : -1]

    def path(self, start, num_rounds):
        """E |e_t|^2 for t = 0, ..., num_rounds, from e_0 = start."""
        state = self._state(start)
        trace, errors = np.eye(self.size).ravel(), []
        for _ in range(num_rounds + 1):
            errors.append(trace @ state[: self.size**2])
            state = self.round @ state
        return np.array(errors)

    def limit(self):
        """The limits of E |e_t|^2 and of E e_t."""
        moving = self.round[:-1, :-1]
        state = np.linalg.solve(np.eye(len(moving)) - moving, self.round[:-1, -1])
        return np.trace(state[: self.size**2].reshape(self.size, self.size)), state[self.size**2 :]

    def _state(self, start):
        return np.concatenate([np.outer(start, start).ravel(), start, [1.0]])

    def _outer(self, matrix, vector):
        """The rows of X under e <- M e + v."""
        size = self.size
        rows = np.zeros((size**2, size**2 + size + 1))
        rows[:, : size**2] = np.kron(matrix, matrix)
        cross = np.einsum("ij,k->ikj", matrix, vector)
        rows[:, size**2 : -1] = (cross + np.swapaxes(cross, 0, 1)).reshape(size**2, size)
        rows[:, -1] = np.outer(vector, vector).ravel()
        return rows
