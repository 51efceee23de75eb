"""Agents: carry in, carry out; noise is data; nothing here imports an environment, a replay, a log or the loop."""
