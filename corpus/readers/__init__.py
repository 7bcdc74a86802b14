"""Published layouts of images with texts, each read into the one row form of a parallel corpus."""
