"""The section ``sweep`` of a recipe: which cells ``mixtura sweep`` compares."""

from typing import Annotated, Literal

from pydantic import Field

from mixtura.sections import Count, Explained, Flag, Processes, Section, Share


class SweepSection(Section):
    """The grid of mixtura sweep."""

    heads: Annotated[tuple[str, ...], Field(min_length=1), Flag("A,B,...")] = Field(
        default=("spherical", "diagonal", "tied", "linear"), description="Heads to compare."
    )
    solvers: Annotated[
        tuple[Literal["closed", "em", "gradient"], ...], Field(min_length=1), Flag("A,B,...", name="solver")
    ] = Field(default=("gradient",), description="How each head is fitted.")
    objectives: Annotated[tuple[str, ...], Field(min_length=1), Flag("A,B,...", name="objective")] = Field(
        default=("conditional",), description="What the solver gradient minimizes, one cell of the grid each."
    )
    explained_variance: Annotated[tuple[Explained, ...], Field(min_length=1), Flag("X,Y,...")] = Field(
        default=(0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0),
        description="Fractions of the variance that PCA keeps; on the command line, 0.1,0.2,...,1 fills in the steps.",
    )
    n_components: Annotated[tuple[Count, ...], Field(min_length=1), Flag("N,M,...")] = Field(
        default=(1,), description="Gaussians per class."
    )
    n_seeds: Annotated[Annotated[int, Field(ge=1, le=10_000)], Flag("N")] = Field(
        default=3, description="Runs of each cell; each draws its own validation samples."
    )
    folds: Annotated[bool, Flag()] = Field(
        default=False, description="Use each group of the data as the test part once (ESC-10, ESC-50)."
    )
    whiten_power: Share = Field(
        default=0.0,
        description="How far the kept axes are scaled to unit variance: 0 not at all, 0.5 half, 1 fully.",
    )
    jobs: Annotated[Processes | None, Flag("N")] = Field(
        default=None, description="Processes to run at once. Default: by the cores; one with a GPU."
    )
