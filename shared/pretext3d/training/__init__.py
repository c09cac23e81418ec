"""Training: run set-up, checkpoints and resume, hand-over of weights, handlers, pictures."""
