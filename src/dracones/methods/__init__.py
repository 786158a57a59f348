"""Methods: what a paper describes, one file each; tensors in, tensors out."""
