"""How fast: the limit of this machine, throughput, scaling, and comparison. See `python -m bench --help`."""
