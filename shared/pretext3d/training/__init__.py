"""Training: run set-up, checkpoints and resume, transfer of pretrained weights, handlers, pictures."""
