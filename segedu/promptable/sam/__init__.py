"""SAM: image encoder, prompt encoder, mask decoder, and how it is trained."""
