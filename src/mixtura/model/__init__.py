"""The model, from a feature vector to a decision, and its folder.

``model``: the value itself; ``decide``: decisions with reasons and neighbors; ``wording``: their sentences;
``bundle``: saving and loading; ``layout_1``: bundles of earlier versions; ``card``: the model card;
``embedding_map``: a 2-D view of the mixture. ``subclass_map``: one of named subclasses, by t-SNE.
"""
