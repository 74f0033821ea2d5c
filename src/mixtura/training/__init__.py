"""Training loops that are independent of the method.

``head_stack``: trains heads of one shape as one batch, on features that fit in memory; ``records``: its inputs and
results.
"""
