"""One of several processes that run rounds together, told when by lines; see `our_processes`."""

import os
import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from bench.peers import _protocol

    asked = _protocol.request()
    if hasattr(os, "sched_setaffinity"):  # cores of its own, as a batch system gives them
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[asked["process_id"] :: asked["num_processes"]] or cores)

    import jax

    from fedjax_rl.training import join_processes, use_all_cores

    jax.config.update("jax_num_cpu_devices", 1)
    use_all_cores()
    join_processes(asked["coordinator"], asked["num_processes"], asked["process_id"])

    from bench._ours import our_round
    from bench._setting import Setting

    fields = asked["setting"]
    setting = Setting(**{**fields, "hidden_sizes": tuple(fields["hidden_sizes"]), "num_devices": len(jax.devices())})
    work = our_round(setting)
    _protocol.serve(work.call, ["jax"], env_steps=work.env_steps, agent_updates=work.agent_updates)


if __name__ == "__main__":
    main()
