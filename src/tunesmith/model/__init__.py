"""The workshop of models: find and load one, put an adapter on it, know the machine and the memory it takes.

Nothing is imported here: a room that needs torch names the module that has it.
"""
