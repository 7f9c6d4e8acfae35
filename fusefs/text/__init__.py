"""Bytes to text and back: BTF types compiled to codecs, the grammar of values, key file names."""
