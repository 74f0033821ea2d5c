"""Training loops that are independent of the method.

``head_stack``: trains heads of one shape as one batch, on features that fit in memory; ``records``: its inputs and
results. What goes into the training of a network: ``order``: the rows of each step; ``augment``: random views of
photos; ``loaders``: photos to batches; ``schedule``: the learning rate of each step; ``keyed_random``: random numbers
that follow from a key.
"""
