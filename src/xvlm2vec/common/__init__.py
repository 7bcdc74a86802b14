"""What several rooms need: the embedding store, fingerprints, whole files, run states, languages."""
