"""The tiny FastVLM: its tokenizer, its training and its evaluation."""
