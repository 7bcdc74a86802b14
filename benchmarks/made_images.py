"""Images that have something of photographs, made from a seed: smooth noise of all sizes, and shapes over it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

_POWER = 1.3
"""How fast the noise falls with its frequency; photographs have about 1."""


def made_image(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """An image; two seeds give two images that have nothing in common."""
    draw = np.random.default_rng(seed)
    frequencies = np.hypot(*np.meshgrid(np.fft.rfftfreq(width) * width, np.fft.fftfreq(height) * height))
    fall = np.maximum(frequencies, 1) ** -_POWER
    planes = []
    shared = draw.standard_normal((height, width))
    for _ in range(3):
        noise = np.fft.rfft2(shared + 0.5 * draw.standard_normal((height, width))) * fall
        plane = np.fft.irfft2(noise, (height, width))
        planes.append(127 + 55 * plane / plane.std())
    image = Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))
    brush = ImageDraw.Draw(image)
    for _ in range(draw.integers(2, 6)):
        x, y = draw.integers(0, width), draw.integers(0, height)
        w, h = draw.integers(width // 10, width // 2), draw.integers(height // 10, height // 2)
        shape = brush.ellipse if draw.integers(2) else brush.rectangle
        shape((x - w // 2, y - h // 2, x + w // 2, y + h // 2), fill=tuple(map(int, draw.integers(0, 256, 3))))
    return image
