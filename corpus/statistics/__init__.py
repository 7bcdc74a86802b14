"""What is in a corpus: counts, and a page with plots."""
