"""Pure tensor functions in 2D and 3D: tensor in, tensor out, on the device where the tensor is."""
