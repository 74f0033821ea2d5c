"""Training loops that are independent of the method.

Heads on features that fit in memory: ``head_stack`` trains heads of one shape as one batch.

Networks: ``trainer`` is the loop, ``setup`` what it takes, ``course`` where it is. ``checkpoint`` is what lies on the
disk, ``state`` the tensors in it, ``hooks`` what a method keeps beside the network, ``optimizers`` the names,
``distributed`` what several processes ask each other. ``records``: inputs and results of both.

What goes into the training of a network: ``order``: the rows of each step; ``augment``: random views of photos;
``loaders``: photos to batches; ``schedule``: the learning rate of each step; ``keyed_random``: random numbers that
follow from a key.
"""
