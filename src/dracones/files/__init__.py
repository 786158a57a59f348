"""Files: atomic writes, and one safetensors file with a header."""
