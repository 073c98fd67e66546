"""V-JEPA 2.1 weights: what they hold beyond V-JEPA 2's, and where it goes.

    theirs                               ours
    encoder    norms_block.(last)        norm
               norms_block.(others)      level_norms, if the predictor reads those levels
               video_mod_embed           added to patch_embed.proj.bias, where it is the same
    predictor  predictor_embed.0, .2     the same (four levels are mixed before they are narrowed)
               video_mod_embed           added to the bias of the embedding and to the mask tokens
    both       img_mod_embed             nowhere: they see still images only
               patch_embed_img           "

Rotary positions differ too: frequencies in pairs, and the encoder stretches rows and columns over
those of a 256 px clip; the released predictor does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from echojepa.models.attention import RotaryConfig
from echojepa.models.formats.names import Tensors

ENCODER_SIDE = 256
"""Pixels whose rows and columns of tokens the encoder stretches any clip over."""
PREDICTOR_ROTARY = RotaryConfig(frequencies="paired")
_IMAGES = ("img_mod_embed", "patch_embed_img.")
_LEVEL = "norms_block."


@dataclass
class DenseNames:
    """Turns the parts of one V-JEPA 2.1 file into our names, and lists what nothing uses."""

    left_out: list[str] = field(default_factory=list)

    @staticmethod
    def recognises(encoder: Tensors) -> bool:
        """Whether an encoder, in unwrapped names, is one of V-JEPA 2.1."""
        return any(name.startswith(_LEVEL) for name in encoder)

    def encoder(self, tensors: Tensors, label: str, *, all_levels: bool) -> Tensors:
        """An encoder in our names; `label` goes before what is left out."""
        last = max(int(name.split(".")[1]) for name in tensors if name.startswith(_LEVEL))
        found = {}
        for name, tensor in self._without_images(tensors, label).items():
            if name.startswith(f"{_LEVEL}{last}."):
                found[name.replace(f"{_LEVEL}{last}.", "norm.")] = tensor
            elif not name.startswith(_LEVEL):
                found[name] = tensor
            elif all_levels:
                found[name.replace(_LEVEL, "level_norms.")] = tensor
            else:
                self.left_out.append(label + name)
        return _with_modality(found, "patch_embed.proj.bias")

    def predictor(self, tensors: Tensors) -> Tensors:
        """A predictor in our names."""
        found = self._without_images(tensors, "predictor: ")
        tokens = [name for name in found if name.startswith("mask_tokens.")]
        last = "predictor_embed.2.bias" if reads_levels(found) else "predictor_embed.bias"
        return _with_modality(found, last, *tokens)

    def _without_images(self, tensors: Tensors, label: str) -> Tensors:
        self.left_out += [label + name for name in tensors if name.startswith(_IMAGES)]
        return {n: tensor for n, tensor in tensors.items() if not n.startswith(_IMAGES)}


def reads_levels(predictor: Tensors | None) -> bool:
    """Whether a predictor reads several levels of the encoder."""
    return predictor is not None and "predictor_embed.0.weight" in predictor


def _with_modality(tensors: Tensors, *takers: str) -> Tensors:
    """The embedding of the kind "video", which every token gets, added where tokens begin."""
    found = dict(tensors)
    modality = found.pop("video_mod_embed", None)
    if modality is not None:
        for name in takers:
            if name in found:
                found[name] = found[name].float() + modality.float().reshape(-1)
    return found
