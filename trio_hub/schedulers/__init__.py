"""Who does what next: the task queue with its schemes and fairness, and the relays to one engine.

Plain synchronous objects: they are told what happened and decide; they neither send nor wait.
"""
