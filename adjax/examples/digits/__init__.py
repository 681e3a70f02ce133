"""`python -m adjax train digits`: a perceptron or a convolutional network on scikit-learn's handwritten digits.

Read `mlp` and `cnn` for the networks, `train` for the training step, `compare` for spelled adjoints beside plain
autodiff.
"""
