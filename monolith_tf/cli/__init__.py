"""The command `monolith-tf`."""
