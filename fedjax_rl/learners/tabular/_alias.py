"""Drawing from a law on few values by one random word and one look at a table."""

import jax
import jax.numpy as jnp


def alias_table(probabilities: jax.Array) -> jax.Array:
    """Walker's alias table: of all 2^32 words, value x is drawn by round(2^32 p_x), and by none where p_x = 0.

    The table has m = 2^k >= n cells, each of c = 2^32 / m words: the first ones stand for the value of the cell, the
    others for its alias. Values short of c words ("light") borrow from those that have more ("heavy"), in the order of
    their numbers; who borrows from whom follows from the running sums of what is missing and of what there is to spare.
    All counts are integers, so nothing is lost; the most probable value takes what rounding left.

    Args:
        probabilities: f[n], 1 < n <= 2^20, summing to one.

    Returns:
        u32[m] the number of own words in the upper 32 - k bits, the alias in the lower k bits.

    Reference: Walker, "An efficient method for generating discrete random variables with general distributions", 1977;
        Huebschle-Schneider and Sanders, "Parallel weighted random sampling", 2022, section 3 (by running sums).
    """
    num_values = len(probabilities)
    num_bits = _num_bits(num_values)
    number = jnp.arange(1 << num_bits, dtype=jnp.uint32)
    cell_size = jnp.uint32(1 << (32 - num_bits))
    # Slightly too few words each, so that the rest, which goes to the most probable value, cannot be negative.
    slightly_less = 2.0**32 * (1 - 16 * jnp.finfo(probabilities.dtype).eps)
    count = (probabilities / jnp.sum(probabilities) * slightly_less).astype(jnp.uint32)
    count = jnp.pad(count, (0, len(number) - num_values))
    largest = number == jnp.argmax(probabilities).astype(jnp.uint32)
    count = jnp.where(largest, 0, count)
    spare = jnp.where(largest, -cell_size - jnp.sum(count, dtype=jnp.uint32), count - cell_size)  # modulo 2^32
    heavy = largest | (count > cell_size)
    light = ~largest & (count < cell_size)
    spare = jnp.where(heavy, spare, 0)
    missing = jnp.where(light, cell_size - count, 0)
    spared, missed = jnp.cumsum(spare, dtype=jnp.uint32), jnp.cumsum(missing, dtype=jnp.uint32)

    def first_beyond(sums: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.searchsorted(sums, value, side="right").astype(jnp.uint32)

    # A light value borrows from the first heavy one that has something left when its turn comes; a heavy one becomes
    # light when what was missed exceeds what was spared up to it, and then borrows from the next one.
    alias = first_beyond(spared, jnp.where(light, missed - missing, spared))
    last = first_beyond(missed, spared)
    lent_all = heavy & (last < len(number))
    left = cell_size - (missed[jnp.minimum(last, len(number) - 1)] - spared)
    own = jnp.where(light, count, left)
    borrows = light | lent_all
    return jnp.where(borrows, (own << num_bits) | alias, ((cell_size - 1) << num_bits) | number)


def draw(word: jax.Array, table: jax.Array) -> jax.Array:
    """u32[...] values by uniform words u32[...] and an `alias_table`."""
    num_bits = _num_bits(len(table))
    cell = word >> (32 - num_bits)
    entry = table[cell]
    own = (word & jnp.uint32((1 << (32 - num_bits)) - 1)) < (entry >> num_bits)
    return jnp.where(own, cell, entry & jnp.uint32((1 << num_bits) - 1))


def possible(probabilities: jax.Array, most: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The values of a law on many that have a probability above zero: a table of these alone stays in the cache.

    Args:
        probabilities: f[n].
        most: K, how many they may be.

    Returns:
        u32[K] the values, f[K] their probabilities (0 past the last one), bool[] whether there are more than K.
    """
    count = jnp.cumsum(probabilities > 0)
    number = jnp.arange(1, most + 1)
    value = jnp.minimum(jnp.searchsorted(count, number), len(probabilities) - 1).astype(jnp.uint32)
    return value, jnp.where(number <= count[-1], probabilities[value], 0), count[-1] > most


def _num_bits(num_values: int) -> int:
    """k >= 1 with 2^k >= n."""
    return max(1, (num_values - 1).bit_length())
