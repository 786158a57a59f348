"""Flows on the feature maps and embeddings of a frozen backbone."""
