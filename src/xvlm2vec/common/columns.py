"""The columns of stored rows and the fields of a translation, by name."""

ID, IMAGE, TEXT_EN, TRANSLATIONS, SOURCE = "id", "image", "text_en", "translations", "source"
LANG, TEXT, ALIGNMENT = "lang", "text", "alignment"

TRAINING_COLUMNS = (ID, IMAGE, TEXT_EN, TRANSLATIONS)
"""What distillation reads of a row."""
PARALLEL_COLUMNS = (*TRAINING_COLUMNS, SOURCE)
"""A parallel corpus: one image and/or English text, its translations, and where the row comes from."""
PAIR_COLUMNS = ("qry", "qry_image", "pos_text", "pos_image")
"""Contrastive pairs, as in MMEB's training sets: a query and what it should find."""
NEGATIVE_COLUMNS = ("neg_text", "neg_image")
"""What the query should not find: one value, or a list of any length."""
INSTRUCTION, TASK = "instruction", "task"
"""What is put before a query's text, or which of the model's prompts is."""
IMAGE_COLUMNS = ("qry_image", "pos_image", "neg_image")
PATH = "_path"
"""MMEB's columns `qry_image_path` and so on hold paths below a folder of images."""
