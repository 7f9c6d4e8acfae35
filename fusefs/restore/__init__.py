"""Making the maps anew that a copy of a mount, or of a part of it, tells of."""
