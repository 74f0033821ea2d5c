"""Training loops that know nothing of methods.

``head_stack``: heads of one shape trained as one batch on features that fit in memory; ``records``: samples and a
schedule in, epochs and a head out.
"""
