"""`python -m adjax train digits`: a network of `affine` layers on scikit-learn's handwritten digits.

Read `model` for the network, `train` for the training step, `compare` for spelled adjoints beside plain autodiff.
"""
