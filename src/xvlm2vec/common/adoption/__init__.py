"""Takes over an embedder as it is: its recipe is read from it, and proven by its own vectors."""
