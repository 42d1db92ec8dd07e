"""Tables of an export, which are looked up and no longer trained."""
