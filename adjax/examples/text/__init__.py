"""`python -m adjax train text`: a language model of characters, on the English text that comes with Python.

Read `decoder` for the network, `train` for the training step, `compare` for spelled adjoints beside plain autodiff.
"""
