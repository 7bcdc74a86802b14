"""Releases: export, cards, verification, push."""
