"""InF-IR curation: MS MARCO pairs in, validated instruction-following tuples out."""
