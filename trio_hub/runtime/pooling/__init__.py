"""The pools of a running hub: their blocks, and the tasks that have them submitted, cancelled and watched."""

from .making import HubPools

__all__ = ["HubPools"]
