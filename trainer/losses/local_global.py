"""A crop of an image learns the vector of the whole image."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from .base import EmbeddingLoss, check_row_labels, full_precision


class LocalGlobalLoss(EmbeddingLoss):
    """Local-global self-distillation: what the model makes of a part of an image comes near what it makes of all of it.

    `mean_n (1 - cos(crop_n, whole_n))`, with no gradient through the whole image. RS-M-CLIP (arXiv 2410.23370) trains
    beside its contrastive loss with the self-distillation of DINO (arXiv 2104.14294): a teacher that is a moving
    average sees whole images, and both end in a projection to prototypes. Here vectors are compared as they are and the
    teacher is the student of the same step, so that nothing is trained, stored or resumed beside the model. What keeps
    all vectors from becoming one is the contrastive loss beside it, so it does not stand alone.

    The whole image and its crops are embedded without any text; `contrast` draws the crops (`trainer.pair_views`).

    | input | shape | meaning |
    |---|---|---|
    | `query` | `(B, D)` | any vectors of the batch: the loss is 0 of their gradients where it has no image |
    | `crop` | `(N, D)` | parts of images; by default none |
    | `whole_image` | `(M, D)` | the images |
    | `image_of_crop` | `(N,)` int64 | the place of each crop's image among them |

    Example:
        `LossSum({"info-nce": PairInfoNCELoss(), "local-global": LocalGlobalLoss()}, {"local-global": 0.5})`
    """

    needs_images = True
    stands_alone = False
    citation = """\
@misc{silva2024multilingual,
    title={Multilingual Vision-Language Pre-training for the Remote Sensing Domain},
    author={João Daniel Silva and João Magalhães and Devis Tuia and Bruno Martins},
    year={2024},
    eprint={2410.23370},
    archivePrefix={arXiv}
}"""

    def forward(
        self,
        *,
        query: torch.Tensor,
        crop: torch.Tensor | None = None,
        whole_image: torch.Tensor | None = None,
        image_of_crop: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Scalar loss over the crops; 0 if there is none.

        Raises:
            ValueError: There are crops without their images, or without the places of these.
        """
        if crop is None:
            return full_precision(query).sum() * 0
        if whole_image is None or image_of_crop is None:
            raise ValueError(f"{type(self).__name__} needs whole_image and image_of_crop beside crop.")
        check_row_labels(self, "image_of_crop", len(image_of_crop), len(crop))
        targets = full_precision(whole_image.detach())[image_of_crop]
        return (1 - cosine_similarity(full_precision(crop), targets)).mean()
