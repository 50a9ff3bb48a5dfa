"""Images: where they are found, how they are packed, split and augmented."""
