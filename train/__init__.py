"""Fine-tunes a bi-encoder on InF-IR shards and measures how well it follows instructions."""
