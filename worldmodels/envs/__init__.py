"""Learned envs: a world model behind Gymnasium's interfaces."""
