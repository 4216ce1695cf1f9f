"""SAM: image encoder, prompt encoder, mask decoder, and interactive training."""
