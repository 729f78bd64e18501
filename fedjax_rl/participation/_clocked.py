"""What rules share that know how long jobs take."""

from ..core import Job, Participation
from ._system import System


class Informed(Participation):
    """A rule that looks at what jobs are expected to take; a subclass declares the system as a field."""

    system: System

    @property
    def needs_job(self) -> bool:
        return True

    def check(self, num_agents: int, job: Job) -> None:
        self.system.check(num_agents, job)


class Clocked(Informed):
    """A rule that says when jobs end, and with them rounds."""

    @property
    def keeps_time(self) -> bool:
        return True

    @property
    def charges_transfers(self) -> bool:
        return self.system.has_links
