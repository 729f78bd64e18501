"""Environments whose physics is an argument, and families that give every agent its own."""

from ._cartpole import CartPole as CartPole
from ._cartpole import CartPoleParams as CartPoleParams
from ._cartpole import CartPoleState as CartPoleState
from ._cartpole_family import cartpole_family as cartpole_family
from ._environment import Environment as Environment
from ._family import PooledEnvironment as PooledEnvironment
from ._family import PooledFamily as PooledFamily
from ._family import UniformFamily as UniformFamily
from ._family import pooled as pooled
from ._family import uniform_family as uniform_family
from ._fleet import FleetFamily as FleetFamily
from ._fleet import fleet_family as fleet_family
from ._gymnax import GymnaxEnvironment as GymnaxEnvironment
from ._gymnax import gymnax_environment as gymnax_environment
from ._gymnax_family import gymnax_family as gymnax_family
from ._mountain_car import MountainCarContinuous as MountainCarContinuous
from ._mountain_car import MountainCarParams as MountainCarParams
from ._mountain_car import MountainCarState as MountainCarState
from ._physics import Rule as Rule
from ._physics import physics_table as physics_table
from ._spaces import Box as Box
from ._spaces import Discrete as Discrete
from ._stacked import StackedEnvironment as StackedEnvironment
from ._stacked import StackedState as StackedState
from ._stacked import stacked as stacked
from ._stacked import stacked_family as stacked_family
