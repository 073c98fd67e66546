"""Masks that fit small grids."""

from __future__ import annotations

from echojepa.objectives.masks import BlockMaskConfig, MaskConfig
from echojepa.objectives.token_masks import BlocksMaskConfig

MASKS = MaskConfig(
    generators=(
        BlockMaskConfig(num_blocks=3, spatial_scale=0.2),
        BlockMaskConfig(num_blocks=1, spatial_scale=0.6),
    )
)
"""Two generators, for grids of four cells a side and more."""
BLOCKS = BlocksMaskConfig.model_validate(MASKS.model_dump())
"""The same, where masks may be of any kind."""
