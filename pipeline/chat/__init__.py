"""Everything that talks to a model: requests as values, an endpoint or the offline rules, and the memory between."""
