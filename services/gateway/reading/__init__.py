"""An accepted task, read to its end, whoever asks and wherever its text comes from."""
