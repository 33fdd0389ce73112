"""How a stage is trained: the loop, optimizers, sharding, checkpoints."""
