"""Who translates: models, servers and programs behind one interface, and what keeps marks and lines from them."""
