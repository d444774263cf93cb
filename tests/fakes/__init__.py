"""Local stand-ins for services, as strict as the real ones."""
