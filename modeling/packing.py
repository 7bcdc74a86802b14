"""Packing: many rows in one forward pass, without padding, what they have in common computed only once.

The walk of rows to vectors:

1. rows (`rows.TextImageRow`) that show the same images, or no images, become **token groups**: `token_groups`
   (token_groups.py) tokenizes them into one common prefix, every image in it, and a rest for each text;
2. groups become **packs**: `pack_groups` (packs.py), or `model.pack`, lays them side by side under a budget of tokens,
   prefixes first, and notes in a `TreeLayout` what each token may see;
3. a pack runs through the backbone: `run_pack` (pack_forward.py), or `model(pack=pack)`. The vision tower sees each
   image once (`image_states`), the attention `"tree"` (tree_attention.py), which `use_tree` sets, lets each text see
   its prefix and itself, and recurrent layers fork the state behind a prefix over its texts (state_forks.py);
   An adapter's texts may run later than their prefixes: these are kept (`PrefixStates`), and `run_texts`, or
   `model(pack=pack, over=kept)`, runs the texts over them;
4. its hidden states become **vectors**, one for each text: that of the last token, or `Pack.averages`.

Whether a model may do so is told by its configuration (`packing_blocker`) and proven by comparing vectors
(`check_sharing`, both in sharing_check.py).

Other modules import packing from here only; a test keeps that.
"""

from .image_inputs import join
from .pack_forward import ImageStates, encoder_outputs, image_states, run_pack, run_texts
from .packs import Member, Pack, TokenGroup, pack_groups
from .prefix_states import PrefixStates
from .rope import rope_limit_of
from .sharing_check import TOLERANCE, SharingCheck, check_sharing, packing_blocker
from .token_groups import common_prefix, takes_bare_images, token_groups
from .tree_attention import TreeLayout, tree_attention, use_tree

__all__ = [
    "TOLERANCE",
    "ImageStates",
    "Member",
    "Pack",
    "PrefixStates",
    "SharingCheck",
    "TokenGroup",
    "TreeLayout",
    "check_sharing",
    "common_prefix",
    "encoder_outputs",
    "image_states",
    "join",
    "pack_groups",
    "packing_blocker",
    "rope_limit_of",
    "run_pack",
    "run_texts",
    "takes_bare_images",
    "token_groups",
    "tree_attention",
    "use_tree",
]
