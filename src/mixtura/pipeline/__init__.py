"""From a recipe to features; the one place that turns names into objects.

``factory``: datasets, encoders and projections by name; ``extraction``: features into a store; ``training_set``:
labeled features with their split; ``queries``: photos and sounds to classify; ``thumbnails``: small pictures by id.
"""
