"""Colors of the report's heat maps, each with the ink that reads best on it, for light and dark pages."""

import math
from collections.abc import Sequence

# Color stops of the heat map from 0 to 100 %; luminance is monotone, so that color blindness
# and print keep their order.
_LIGHT_STOPS = ((0xF3, 0xEF, 0xE6), (0xA9, 0xD3, 0xD3), (0x3E, 0x8F, 0xB0), (0x17, 0x3F, 0x7A))
_DARK_STOPS = ((0x1E, 0x25, 0x31), (0x24, 0x4C, 0x6E), (0x2F, 0x94, 0xA8), (0xA8, 0xEB, 0xC6))
# From a loss of 100 points over no change to a gain of 100 points.
_LIGHT_CHANGE = ((0x9C, 0x2F, 0x1E), (0xE9, 0xB4, 0x9C), (0xF3, 0xEF, 0xE6), (0xA5, 0xD0, 0xC4), (0x0F, 0x66, 0x50))
_DARK_CHANGE = ((0xF0, 0x8A, 0x74), (0x7A, 0x3B, 0x30), (0x1E, 0x25, 0x31), (0x1F, 0x5A, 0x4C), (0x7F, 0xE3, 0xC0))
_INKS = ("#ffffff", "#000000")


def heat_colors(fraction: float) -> dict[str, str]:
    """Colors of a heat map cell.

    Args:
        fraction: A score between 0 and 1.

    Returns:
        Hex colors: background and ink for light (``"l"``, ``"li"``) and dark pages (``"d"``, ``"di"``); the ink is the
        one of black and white with more contrast (relative luminance of WCAG 2.2).
    """
    return _colors(_mix(_LIGHT_STOPS, fraction), _mix(_DARK_STOPS, fraction))


def change_colors(difference: float) -> dict[str, str]:
    """Colors of a cell that shows a change, as `heat_colors`; small changes are drawn apart by a square root.

    Args:
        difference: Between -1 and 1; a gain is green, a loss red.
    """
    position = (1 + math.copysign(math.sqrt(min(abs(difference), 1.0)), difference)) / 2
    return _colors(_mix(_LIGHT_CHANGE, position), _mix(_DARK_CHANGE, position))


def _colors(light: tuple[float, float, float], dark: tuple[float, float, float]) -> dict[str, str]:
    return {"l": _hex(light), "li": _ink(light), "d": _hex(dark), "di": _ink(dark)}


def _mix(stops: Sequence[tuple[int, int, int]], fraction: float) -> tuple[float, float, float]:
    """Linear interpolation between color stops that divide [0, 1] evenly."""
    position = min(max(fraction, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(position), len(stops) - 2)
    part = position - index
    red, green, blue = (a + (b - a) * part for a, b in zip(stops[index], stops[index + 1], strict=True))
    return red, green, blue


def _hex(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in color)


def _luminance(color: tuple[float, float, float]) -> float:
    """Relative luminance of an sRGB color with channels from 0 to 255."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _ink(color: tuple[float, float, float]) -> str:
    """White or black, whichever reads better; at 0.179 both have the same contrast."""
    return _INKS[0] if _luminance(color) < 0.179 else _INKS[1]
