"""The columns of stored rows and the fields of a translation, by name."""

ID, IMAGE, TEXT_EN, TRANSLATIONS, SOURCE = "id", "image", "text_en", "translations", "source"
LANG, TEXT = "lang", "text"

TRAINING_COLUMNS = (ID, IMAGE, TEXT_EN, TRANSLATIONS)
"""What distillation reads of a row."""
PARALLEL_COLUMNS = (*TRAINING_COLUMNS, SOURCE)
"""A parallel corpus: one image and/or English text, its translations, and where the row comes from."""
PAIR_COLUMNS = ("qry", "qry_image", "pos_text", "pos_image")
"""Contrastive pairs, as in MMEB's training sets."""
