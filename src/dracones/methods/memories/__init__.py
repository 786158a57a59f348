"""What normal features look like, kept and not trained: Gaussians and memories."""
