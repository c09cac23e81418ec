"""Networks: the encode/decode interface, encoders, decoders, heads, and MONAI adapters."""
