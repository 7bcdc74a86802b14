"""`xvlm2vec corpus check`: files are read in batches, judged by the rules, and written without what is dropped."""
