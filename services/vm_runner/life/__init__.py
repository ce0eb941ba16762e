"""The life of a run: its states, its microVMs one after the other, what it tells and writes."""
