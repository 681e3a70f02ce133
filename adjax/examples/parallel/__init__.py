"""Training on the devices of a mesh, for the programs beside this package.

Read `options` for what can be asked, `mesh` for where arrays lie, `gradients` for micro-batches and the loss scale,
`training` for the parts of a step.
"""
