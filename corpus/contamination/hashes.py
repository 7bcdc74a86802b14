"""Perceptual hashes of images: 64 bits that a copy shares with its source though it is smaller, lighter or compressed.

An image is shrunk to a small square of greys; the signs of its lowest frequencies (a discrete cosine transform) are the
hash (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"). Parts of the square have
hashes as well, so that a crop is found by the hash of the part that it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dct

SIDE = 64
"""Pixels of the square of greys."""
_SMALL, _LOW = 32, 8
_PLAIN = 3.0
"""Spread of greys below which an image is one plain colour, and says nothing."""

Greys = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A part of an image, as shares of its sides, and whether it is mirrored.

    Attributes:
        left: Left edge.
        top: Upper edge.
        width: Width.
        height: Height.
        mirrored: Whether left and right are exchanged.
    """

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    mirrored: bool = False


WHOLE = View()


# Sizes of parts, and how many of them stand beside each other.
_DENSE = ((0.9, 3), (0.8, 4), (0.7, 4), (0.6, 5))
_COARSE = ((0.9, 2), (0.75, 3), (0.6, 4))


@cache
def views(is_dense: bool, mirrored: bool = False) -> tuple[View, ...]:
    """The whole image, and the parts of it by which crops are found: squares of several sizes on a grid.

    Args:
        is_dense: Whether the grid has many parts, which finds more crops and takes longer.
        mirrored: Whether all are mirrored.
    """
    parts = [View(mirrored=mirrored)]
    for size, steps in _DENSE if is_dense else _COARSE:
        places = np.linspace(0, 1 - size, steps)
        parts += [View(float(left), float(top), size, size, mirrored) for top in places for left in places]
    return tuple(parts)


def greys(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An image as a square of greys."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def hashes(squares: npt.NDArray[np.uint8], view: View = WHOLE) -> npt.NDArray[np.uint64]:
    """The hashes of a part of each square; 0 for one of a plain colour.

    Args:
        squares: Greys, `(N, SIDE, SIDE)`.
        view: The part.
    """
    small = shrunk(squares, view)
    low = (_low_frequencies() @ small @ _low_frequencies().T).reshape(len(small), -1)
    low[:, 0] = 0  # the mean says how light it is
    bits = low > np.median(low, axis=1, keepdims=True)
    found = np.packbits(bits, axis=1).view(np.uint64).ravel()
    found[small.reshape(len(small), -1).std(1) < _PLAIN] = 0
    return found


def shrunk(squares: npt.NDArray[np.uint8], view: View = WHOLE) -> Greys:
    """A part of each square, `(N, 32, 32)`."""
    rows, columns = _weights(view.top, view.height), _weights(view.left, view.width)
    if view.mirrored:
        columns = columns[::-1]
    return rows @ squares.astype(np.float32) @ columns.T


@cache
def _low_frequencies() -> Greys:
    """The lowest rows of the discrete cosine transform, `(8, 32)`."""
    return dct(np.eye(_SMALL), axis=0, norm="ortho")[:_LOW].astype(np.float32)


@cache
def _weights(start: float, length: float) -> Greys:
    """How much each pixel of a side counts for each of 32 parts of a stretch of it."""
    edges = (start + length * np.arange(_SMALL + 1) / _SMALL) * SIDE
    pixels = np.arange(SIDE)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0, None).astype(np.float32)
    return weights / weights.sum(1, keepdims=True)


def likeness(first: Greys, second: Greys) -> npt.NDArray[np.float32]:
    """Correlation of the greys of small squares, pair by pair: 1 for the same, 0 for unrelated ones."""
    first, second = (part.reshape(len(part), -1) for part in (first, second))
    first, second = (part - part.mean(1, keepdims=True) for part in (first, second))
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.einsum("ij,ij->i", first, second) / np.maximum(sizes, 1e-6)
