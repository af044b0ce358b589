"""The scheduler of tasks, with its schemes and its fair queue, and the unanswered requests of each engine.

It consists of plain synchronous objects. They are told what happened, and decide what to do. They send nothing, and
never wait.
"""
