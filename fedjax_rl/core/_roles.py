"""The six roles of a federated round. Authors write for ONE agent.

Type names in signatures: `Physics` parameters of one agent's MDP, `Shared` what a meeting place keeps (parameters and
server variables), `Download` what an agent receives, `Local` what an agent keeps to itself, `Message` what it uploads.
All are pytrees; leaves are `[...]` for one agent and `[N, ...]` stacked.
"""

import abc
import enum
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from . import tree
from ._messages import Cohort, Envelope, Job, Mail, Marks, Message, Received, Total, add_up
from ._metrics import Metrics


PyTree = Any
Physics = Any
Shared = Any
Download = Any
Local = Any


class EnvFamily(abc.ABC):
    """Many MDPs that share spaces and differ in physics."""

    env: Any  # fedjax_rl.envs.Environment

    @abc.abstractmethod
    def sample(self, key: jax.Array, num_agents: int) -> Physics:
        """Draws one physics per agent, leaves [N, ...]; agent i's must not depend on N."""

    def sample_unseen(self, key: jax.Array, num_agents: int) -> Physics:
        """Physics of agents that never train, leaves [N, ...]."""
        return self.sample(jax.random.fold_in(key, 0x756E7365), num_agents)

    @property
    def num_agents(self) -> int | None:
        """The number of training agents where the family fixes it (a table of machines), else None."""
        return None

    @property
    def num_unseen(self) -> int | None:
        """The number of agents kept unseen where the family fixes it, else None: as many as are asked for."""
        return None

    def worlds(self, physics: Physics) -> Physics:
        """The single worlds behind a stack of physics, leaves [W, ...]; more than N where an agent pools several."""
        return physics

    @property
    def base(self) -> "EnvFamily":
        """The family whose `env` plays the single `worlds`."""
        return self


class Need(enum.Enum):
    """What a learner cannot do without, and why; `make_round` refuses what does not grant it."""

    EVERYONE = "an agent that misses a round no longer knows what the others refer to"
    DELIVERY = "what the meeting place keeps must have received every message"
    WHOLE = "what the meeting place keeps must have received messages as they were sent"
    SUM = "what the meeting place keeps must move by the sum of the messages"
    AVERAGE = "what arrives is a place to go to, so the aggregate of equal messages must be that message"
    UNMIXED = "what its meeting places keep has no meaning when it is averaged between them"
    FRESH = "a message only has a meaning for the model that it was computed from"


class Learner(abc.ABC):
    """Owns what a message means: `update` makes it, `merge` consumes it."""

    def check(self, env: Any, physics: Physics) -> None:
        """Raises `ValueError` where it cannot play this environment; `physics` of one agent, shapes only."""
        del env, physics

    @property
    def personal(self) -> bool:
        """Whether `policy` depends on `local`."""
        return False

    @property
    def needs(self) -> frozenset[Need]:
        """What the round must grant."""
        return frozenset()

    @property
    def num_envs(self) -> int:
        """Environments that one agent plays side by side: how long its vectors are."""
        return 1

    def uploads_gradient(self, env: Any) -> bool:
        """Whether a message is a gradient at the parameters pulled, and nothing else; a download is those parameters.

        Such messages may be compared and kept from round to round. Leaf by leaf, both have the same shapes.
        """
        del env
        return False

    @property
    def measures_variance(self) -> bool:
        """Whether headers tell the variance of the messages."""
        return False

    @property
    def tells_returns(self) -> bool:
        """Whether headers tell the mean return of the episodes that ended."""
        return False

    @abc.abstractmethod
    def init_shared(self, key: jax.Array, env: Any) -> Shared:
        """Parameters and server variables of a meeting place."""

    @abc.abstractmethod
    def init_local(self, key: jax.Array, env: Any, physics: Physics, shared: Shared) -> Local:
        """What one agent keeps to itself."""

    @abc.abstractmethod
    def broadcast(self, shared: Shared) -> Download:
        """What agents receive: no server moments."""

    def job(self, env: Any) -> tuple[float, float, int]:
        """Environment steps and gradients of one agent in a round, and the local steps they are split into.

        Known beforehand, because clocks decide who comes when before anybody works; NaN where it is not.
        """
        del env
        return float("nan"), float("nan"), 1

    def downlink_bits(self, env: Any, download: Download, local: Local) -> Any:
        """Size of what an agent receives [bit]; less than that of the raw arrays where it knows some of it already."""
        del env, local
        return float(tree.num_bits(download))

    @abc.abstractmethod
    def update(
        self, key: jax.Array, env: Any, physics: Physics, download: Download, local: Local, work: jax.Array | None
    ) -> tuple[Local, Envelope, Metrics]:
        """One agent between two meetings."""

    def settle(self, before: Local, after: Local, delivered: jax.Array) -> Local:
        """Commits what depends on delivery; `before` is the state before the round."""
        del before, delivered
        return after

    @abc.abstractmethod
    def merge(self, key: jax.Array, env: Any, shared: Shared, message: Message, received: Received) -> Shared:
        """A meeting place digests one aggregated message."""

    @abc.abstractmethod
    def policy(self, shared: Shared, local: Local) -> PyTree:
        """The parameters this agent acts with."""


class Aggregator(abc.ABC):  # noqa: B024 - apply or finish, by `linear`
    """Many messages become one.

    A linear aggregator is a function of the weighted sum, redefines `finish` and streams: the stack of M messages is
    never built. Any other redefines `apply`. All-zero weights give a finite message (nothing received, nothing
    merged: it is not used).
    """

    linear: ClassVar[bool] = False

    @property
    def averages(self) -> bool:
        """Whether equal messages give that message, however many have arrived."""
        return True

    @property
    def recovers_sum(self) -> bool:
        """Whether its message times the weight received is the weighted sum of the messages."""
        return False

    def init(self, message: Message) -> PyTree:
        """Carried state."""
        del message
        return ()

    def finish(self, key: jax.Array, state: PyTree, total: Total) -> tuple[PyTree, Message]:
        """Linear: divides the (decoded) sum."""
        raise NotImplementedError(f"{type(self).__name__} is not linear")

    def apply(self, key: jax.Array, state: PyTree, stack: Message, weight: jax.Array) -> tuple[PyTree, Message]:
        """Leaves [M, ...] and f32[M] -> leaves [...]."""
        if not self.linear:
            raise NotImplementedError(f"{type(self).__name__} must define apply or be linear")
        return self.finish(key, state, add_up(stack, weight, Marks(jnp.ones_like(weight), jnp.zeros_like(weight))))


class TransformState(NamedTuple):
    """What a transform remembers outside the agents."""

    wire: PyTree = ()  # the network or an adversary
    node: PyTree = ()  # the receiver


class Transform(abc.ABC):  # noqa: B024 - every hook has a meaningful default
    """What happens to a message on its way. Every hook is the identity unless redefined."""

    lossless: ClassVar[bool] = False  # True: a payload arrives as it was sent, or not at all
    delivers: ClassVar[bool] = True  # False: messages may get lost
    needs_sum: ClassVar[bool] = False  # True: `decode` must see the sum of the messages, so the aggregator is linear
    always_releases: ClassVar[bool] = False  # True: there is something to merge even when no message has arrived
    needs_gradient: ClassVar[bool] = False  # True: it keeps messages from round to round, so they must be gradients
    needs_whole: ClassVar[bool] = False  # True: both ends remember its messages, so what follows must not change them
    reweighs: ClassVar[bool] = False  # True: it changes how much a message counts, other than by losing it
    compares: ClassVar[bool] = False  # True: what becomes of a message depends on the others of its round
    silences: ClassVar[bool] = False  # True: agents may have nothing to say, which costs no bit (weight 0, bits 0)

    @property
    def needs_variance(self) -> bool:
        """Whether headers must tell the variance of the messages."""
        return False

    @property
    def needs_returns(self) -> bool:
        """Whether headers must tell the returns of episodes."""
        return False

    def init(self, message: Message) -> TransformState:
        """Memory of the wire and of the receiver, given a zero message as this transform receives it."""
        del message
        return TransformState()

    def init_agent(self, agent: jax.Array, message: Message) -> PyTree:
        """One agent's memory (error feedback, last message sent)."""
        del agent, message
        return ()

    def encode(self, key: jax.Array, agent: PyTree, envelope: Envelope, download: Download) -> tuple[PyTree, Envelope]:
        """One agent, before the wire: clip, compress, lie, stay silent."""
        del key, download
        return agent, envelope

    def stays(self, key: jax.Array) -> jax.Array:
        """bool[]: whether an agent is there when its work is over; if not, it stays as it was before the round."""
        del key
        return jnp.bool_(True)

    def exchange(self, key: jax.Array, wire: PyTree, cohort: Cohort, envelopes: Envelope) -> tuple[PyTree, Envelope]:
        """All M messages on the wire: collusion, masking, loss."""
        del key, cohort
        return wire, envelopes

    def decode(self, key: jax.Array, node: PyTree, total: Total, received: Received) -> tuple[PyTree, Total]:
        """The receiver, on the sum before it is divided (or on the result of a non-linear rule), in reverse order."""
        del key, received
        return node, total

    def settle(self, before: PyTree, after: PyTree, delivered: jax.Array) -> PyTree:
        """An agent's memory commits on delivery."""
        return tree.where(delivered, after, before)

    @property
    def exchanges(self) -> bool:
        """Whether the messages must meet on the wire, which needs their stack."""
        return type(self).exchange is not Transform.exchange

    @property
    def drops(self) -> bool:
        """Whether agents may vanish in the middle of a round."""
        return type(self).stays is not Transform.stays


class Participation(abc.ABC):
    """Who acts, and when."""

    @property
    def needs_job(self) -> bool:
        """Whether it must know what agents are expected to do and to send."""
        return False

    @property
    def observes(self) -> bool:
        """Whether what it draws depends on what happened in earlier rounds."""
        return type(self).observe is not Participation.observe

    @property
    def complete(self) -> bool:
        """Whether all agents act in every round."""
        return False

    @property
    def keeps_time(self) -> bool:
        """Whether it says how long a round takes, so that nothing around it may change who acts or how much."""
        return False

    @property
    def charges_transfers(self) -> bool:
        """Whether part of that time is spent on a download and an upload of every agent that acts."""
        return False

    def check(self, num_agents: int, job: Job) -> None:
        """Raises `ValueError` when the rule does not fit that many agents, or needs to know more of their job."""
        del num_agents, job

    @abc.abstractmethod
    def init(self, key: jax.Array, num_agents: int, job: Job) -> PyTree:
        """Carried state."""

    @abc.abstractmethod
    def sample(self, key: jax.Array, state: PyTree, num_agents: int) -> tuple[PyTree, Cohort]:
        """Draws the next cohort; its size is static."""

    def observe(self, state: PyTree, cohort: Cohort, metrics: Metrics) -> PyTree:
        """Learns what really happened; metrics with leaves [M]."""
        del cohort, metrics
        return state

    def report(self, before: PyTree, after: PyTree) -> Metrics:
        """What a round did to the carried state, as scalars."""
        del before, after
        return {}


class NodeState(NamedTuple):
    """State of a meeting place: server, edge server, peer."""

    shared: Shared
    aggregator: PyTree
    decoders: tuple[PyTree, ...]  # the receiver's side of each transform
    refused: jax.Array  # i32[] merges so far that would have made something non-finite
    version: jax.Array  # i32[] merges so far that changed it


class Node(NamedTuple):
    """What a meeting place does; built by the round."""

    digest: Callable[..., NodeState]  # (key, state, mail, population=N): of how many agents this is the meeting place
    broadcast: Callable[[Shared], Download]  # what an agent receives of the shared state
    linear: bool = False  # whether sums of messages are all it needs
    num_slots: int = 1  # messages that a push brings at most


class Places(NamedTuple):
    """Where models live."""

    public: PyTree  # what every agent may look at
    own: PyTree  # [N, ...] what belongs to one agent; in rounds with more rows where devices do not divide N


class Topology(abc.ABC):
    """Where models live and who meets whom. In `pull`, `model` and `address`, `places.own` is one agent's slice."""

    @property
    def per_agent_models(self) -> bool:
        """Whether agents are evaluated with different models."""
        return False

    @property
    def mixes_models(self) -> bool:
        """Whether models meet by arithmetic on their floating leaves, beside the messages."""
        return False

    @property
    def carries_messages(self) -> bool:
        """Whether messages travel at all; else agents digest their own, and models may travel instead."""
        return True

    @property
    def num_places(self) -> int | None:
        """Number of meeting places whose sums can be streamed; None: the stack of messages is needed."""
        return None

    @property
    def stale(self) -> bool:
        """Whether agents may work with older models than the meeting places have."""
        return False

    @property
    def synchronous(self) -> bool:
        """Whether a round's messages become one merge, at once, into the model that they were computed from."""
        return True

    @property
    def one_by_one(self) -> bool:
        """Whether messages that come in one round are merged one after the other, as if each had come alone."""
        return False

    @property
    def by_rounds(self) -> bool:
        """Whether a push is a round, so that a round's messages must not be pushed one after the other."""
        return False

    @property
    def lossless(self) -> bool:
        """Whether meeting places receive messages as they were sent, and keep what they made of them."""
        return True

    @property
    def delivers(self) -> bool:
        """False: messages may get lost on their way to a meeting place."""
        return True

    def check(self, num_agents: int) -> None:
        """Raises `ValueError` when the topology does not fit that many agents."""
        del num_agents

    @abc.abstractmethod
    def init(self, node: Node, state: NodeState, message: Message, num_agents: int) -> Places:
        """Copies of one meeting place's first state."""

    @abc.abstractmethod
    def pull(self, node: Node, places: Places, agent: jax.Array) -> Download:
        """What one agent works with: what it downloads now, or what it downloaded when it departed."""

    def version(self, places: Places, agent: jax.Array) -> jax.Array:
        """i32[]: the version of the model that one agent would download now; where a topology wraps another one."""
        del places, agent
        raise NotImplementedError(f"{type(self).__name__} does not count versions")

    def staleness(self, places: Places, agent: jax.Array) -> jax.Array:
        """i32[]: versions between what one agent works with and what it would download now."""
        del places, agent
        return jnp.int32(0)

    def merges(self, places: Places, num_messages: jax.Array) -> jax.Array:
        """i32[]: versions that so many messages would make where they are pushed one after the other."""
        del places
        return num_messages

    def hears(self, places: Places, agent: jax.Array) -> jax.Array | bool:
        """bool[]: whether the message of one agent reaches its meeting place; one that does not is lost."""
        del places, agent
        return True

    def arrive(self, places: Places, cohort: Cohort, envelopes: Envelope) -> Envelope:
        """The stack of messages [M, ...] in the order of its slots, before it is pushed: staleness, discounts."""
        del places, cohort
        return envelopes

    def report(self, before: Places, after: Places) -> Metrics:
        """What a round did to the meeting places, as scalars."""
        del before, after
        return {}

    @abc.abstractmethod
    def model(self, places: Places, agent: jax.Array) -> Shared:
        """What one agent is evaluated with."""

    def address(self, places: Places, agent: jax.Array) -> jax.Array:
        """i32[]: the meeting place of one agent."""
        del places, agent
        return jnp.int32(0)

    def charge(self, places: Places, agent: jax.Array, uplink: jax.Array, downlink: jax.Array) -> Any:
        """What one acting agent sends and receives over all its links, f32[] twice [bit].

        Args:
            places: where models live.
            agent: i32[].
            uplink: size of its message.
            downlink: size of what it pulled.
        """
        del places, agent
        return uplink, downlink

    def meet(self, models: PyTree, cohort: Cohort) -> PyTree:
        """What the models of a cohort become when their agents average them: leaves [N, ...] -> [M, ...].

        Floating leaves only; inactive agents are neither heard nor changed.
        """
        del models, cohort
        raise NotImplementedError(f"{type(self).__name__} does not average models")

    @abc.abstractmethod
    def push(self, key: jax.Array, node: Node, places: Places, cohort: Cohort, mail: Mail) -> Places:
        """The mail reaches the meeting places.

        Where cohorts tell turns `key` is the same in every round, so that results do not depend on how arrivals are
        batched; what is drawn beside the merges, which are told apart by their number, needs a count of its own.
        """
